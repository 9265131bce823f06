"""What pictures show: the numbers behind curves, accuracies, calibration, data and stories."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import COUNTS, EPOCHS, STORY, TOLD, reseal, row_of, rows_of, split_of, write_trial

from ltbench.benchmarks.analysis.records import Record, find_records
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.figures import main
from ltbench.benchmarks.plots.accuracy import class_shares, confusion, confusion_counts, per_class_accuracy
from ltbench.benchmarks.plots.calibration import BINS, reliability, reliability_bins
from ltbench.benchmarks.plots.cost import accuracy_by_cost
from ltbench.benchmarks.plots.images import class_counts, find_store, mosaic
from ltbench.benchmarks.plots.ranking import ranking
from ltbench.benchmarks.plots.story import has_story, read_story, story_groups
from ltbench.benchmarks.plots.training import mean_and_range, read_curves, stage_starts, training_curves
from ltbench.benchmarks.training.protocol import PRESETS, Protocol
from ltbench.benchmarks.training.trial import run_trial
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError


def test_curves_are_those_of_the_file(tmp_path: Path) -> None:
    curves = read_curves(write_trial(tmp_path))
    assert curves.stages == ("pretrain", "train", "train") and curves.selected == 2
    np.testing.assert_array_equal(curves.accuracy, [np.nan, 0.25, 0.5])
    np.testing.assert_array_equal(curves.val_loss, [np.nan, 1.5, 0.5])
    np.testing.assert_array_equal(curves.train_loss, [5.0, 1.0, np.nan])
    assert curves.recall.shape == (3, 4) and np.isnan(curves.recall[1, 2])


CORRUPT = ["", "{", "[]\n", '{"stage": "a"}\n']
CORRUPT += ['{"stage": "a", "epoch": 0, "terms": {}, "val_loss": 1, "val_recall": [1]}\n']
CORRUPT += ['{"stage": "a", "epoch": 0, "terms": {"loss": "x"}, "val_loss": 1, "val_recall": null}\n']


@pytest.mark.parametrize("text", [None, *CORRUPT, pytest.param("[" * 10**5, id="deep")], ids=str)
def test_corrupt_metrics_are_named(tmp_path: Path, text: str | None) -> None:
    record = write_trial(tmp_path)
    path = record.folder / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_curves(record)


def test_an_altered_log_of_epochs_is_refused(tmp_path: Path) -> None:
    folder = write_trial(tmp_path).folder
    reseal(folder)
    record = Record.read(folder)
    assert read_curves(record).selected == 2
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_curves(record)


def test_drawings_of_arrays() -> None:
    mean, low, high = mean_and_range([np.array([1.0, np.nan, 3.0]), np.array([3.0, np.nan])])
    np.testing.assert_array_equal(mean, [2, np.nan, 3])
    np.testing.assert_array_equal(low, [1, np.nan, 3])
    np.testing.assert_array_equal(high, [3, np.nan, 3])
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 20, 20), dtype=np.uint8)
    image = mosaic(pixels, [np.array([2, 1]), np.array([0])], columns=2)
    assert image.shape == (41, 41, 3)
    assert (image[:20, :20] == 2).all() and (image[:20, 21:] == 1).all() and (image[21:, :20] == 0).all()
    assert (image[20] == 255).all() and (image[:, 20] == 255).all() and (image[21:, 21:] == 255).all()


def test_training_curves_draw_mean_reported_epochs_and_stages(tmp_path: Path) -> None:
    write_trial(tmp_path, trial=0)
    reported = {"metric": "", "score": 0.5, "stage": "train", "epoch": 0}
    write_trial(tmp_path, trial=1, epochs=EPOCHS[1:], selection=reported)
    write_trial(tmp_path, "rs")
    row = row_of(tmp_path)
    assert stage_starts([read_curves(record) for record in row.records]) == {"pretrain": 1.0, "train": 1.5}
    left, right = training_curves(row, row_of(tmp_path, "rs")).axes
    lines = {line.get_label(): line.get_ydata() for line in (*left.lines, *right.lines)}
    np.testing.assert_allclose(lines["validation"], [25, (25 + 50) / 2, 50])
    np.testing.assert_allclose(sorted(lines["reported epoch"]), [25, 50])
    np.testing.assert_allclose(lines["rs, validation (1 trial)"], [np.nan, 25, 50])
    # No line joins the losses of two stages, and none is a mean over different ones.
    np.testing.assert_allclose(lines["training: each stage's own loss"], [5, np.nan, np.nan])
    np.testing.assert_allclose(lines["_stage"], [1, 1, np.nan])


def test_losses_below_0_are_drawn(tmp_path: Path) -> None:
    write_trial(tmp_path, "rs")
    write_trial(tmp_path, epochs=[{**EPOCHS[0], "terms": {"loss": -0.9}}, *EPOCHS[1:]])
    assert training_curves(row_of(tmp_path)).axes[1].get_ylim()[0] < -0.9
    assert training_curves(row_of(tmp_path, "rs")).axes[1].get_ylim()[0] == 0


def test_the_line_of_the_baseline_is_over_the_trials_of_the_panel(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 20)
    for trial, wrong in enumerate((0, 0, 40)):
        write_trial(tmp_path, trial=trial, logits=np.eye(4)[np.where(np.arange(80) < wrong, 3 - labels, labels)])
    for trial in range(2):
        write_trial(tmp_path, "rs", trial)
    (setting,) = settings_of(find_records(tmp_path))
    lines = {panel.trials: ranking(panel).axes[0].lines[-1].get_xdata()[0] for panel in setting.panels()}
    assert lines[0, 1] == pytest.approx(100) and lines[0, 1, 2] == pytest.approx(250 / 3)


def test_pictures_of_folds_say_so(tmp_path: Path) -> None:
    protocol = replace(PRESETS["quick"], folds=3)
    for method, folds in (("ce", range(3)), ("rs", range(2))):
        for fold in folds:
            write_trial(tmp_path, method, fold, first_id=100 * fold, varied_from="9" * 64, protocol=protocol)
    (setting,) = settings_of(find_records(tmp_path))
    row, part = (next(own for own in setting.rows if own.name == name) for name in ("ce", "rs"))
    assert "test, 3 folds, pooled, 95 % intervals" in ranking(setting.panels()[0]).get_suptitle()
    assert "Accuracy and cost, 3 folds, pooled" in accuracy_by_cost([row]).get_suptitle()
    assert "3 folds, pooled" in reliability([row]).axes[0].get_title()
    assert "2 of 3 folds, pooled" in " ".join(confusion(part).get_suptitle().split())
    assert "mean and range of 3 folds" in training_curves(row).get_suptitle()
    figure = per_class_accuracy([row, part])
    assert "All folds pooled" in figure.get_suptitle() and "trials" not in figure.get_suptitle()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ce, 3 folds", "rs, 2 of 3 folds"]


def test_class_shares_and_confusion(tmp_path: Path) -> None:
    predicted = [[0, 0, 1, 1, 1, 3], [0, 3, 1, 0, 1, 3]]  # of true classes 0 0 1 1 1 3; class 2 has no test image
    for trial, own in enumerate(predicted):
        write_trial(tmp_path, trial=trial, logits=np.eye(4)[own], test_counts=(2, 3, 0, 1))
    row = row_of(tmp_path)
    share, low, high = class_shares(row)
    np.testing.assert_allclose(share, [0.75, 5 / 6, np.nan, 1])
    for label in range(4):
        estimate = row.class_estimate(label)
        np.testing.assert_array_equal((low[label], high[label]), (estimate.low, estimate.high))
    assert np.isnan([low, high]).all()  # two trials of a few images
    assert confusion_counts(row).tolist() == [[3, 0, 0, 1], [1, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]]
    axes, bar = confusion(row).axes
    assert "(%)" in bar.get_ylabel()
    np.testing.assert_allclose(axes.images[0].get_array()[0], [75, 0, 0, 25])
    assert [text.get_text() for text in axes.texts[8:12]] == ["n/a"] * 4
    write_trial(tmp_path, "rs", test_counts=(2, 3, 0, 1))
    figure = per_class_accuracy([row, row_of(tmp_path, "rs")])
    drawn = [line for line in figure.axes[0].lines if line.get_label().endswith(("ce, n = 2", "rs, n = 1"))]
    assert len(drawn) == 2 and "1 to 2" in figure.get_suptitle()
    np.testing.assert_allclose([line.get_xdata() for line in drawn], [sorted(COUNTS)] * 2)
    np.testing.assert_allclose(drawn[0].get_ydata(), 100 * share[::-1])


def test_classes_of_one_size_stand_side_by_side(tmp_path: Path) -> None:
    write_trial(tmp_path, class_counts=(50, 50, 20, 70))
    line, *_ = per_class_accuracy(rows_of(tmp_path)).axes[0].lines
    assert line.get_xdata().tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(line.get_ydata(), 100 * class_shares(row_of(tmp_path))[0][[3, 0, 1, 2]])


def test_reliability_bins_are_those_of_the_ece(tmp_path: Path) -> None:
    write_trial(tmp_path, trial=0)
    size, confidence, accuracy = reliability_bins(row_of(tmp_path))
    assert len(size) == BINS and size.sum() == 80 and (np.isnan(accuracy) == (size == 0)).all()
    ece = np.nansum(size * np.abs(confidence - accuracy)) / 80
    assert ece == pytest.approx(row_of(tmp_path).values("ece")[0], rel=1e-9)


def test_reliability_bins_by_hand(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1], [0.68, 0.12, 0.1, 0.1], [0.2, 0.15, 0.35, 0.3]])
    for trial in range(2):
        write_trial(tmp_path, trial=trial, logits=np.log(probabilities), test_counts=(1, 1, 1, 0))
    size, confidence, accuracy = reliability_bins(row_of(tmp_path))
    assert size.tolist() == [0] * 5 + [2, 0, 0, 0, 0, 4, 0, 0, 0, 0]
    assert (accuracy[5], accuracy[10]) == (1, 0.5)
    assert confidence[10] == pytest.approx(0.69)
    assert len(reliability(rows_of(tmp_path)).axes) == 2


def test_class_counts_are_those_of_the_split(tmp_path: Path) -> None:
    record = write_trial(tmp_path, class_counts=(10, 300, 30, 0), test_counts=(20, 0, 20, 20))
    axes = class_counts(record.result.data.class_names, record.manifest()).axes[0]
    heights = [line.get_ydata().tolist() for line in axes.lines]
    np.testing.assert_array_equal(heights, [[300, 30, 10, np.nan], [2] * 4, [np.nan, 20, 20, 20]])
    assert not axes.patches and [text.get_text() for text in axes.texts[:4]] == ["300", "30", "10", "0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["class 1", "class 2", "class 0", "class 3"]


def test_a_changed_split_is_refused(tmp_path: Path) -> None:
    record = write_trial(tmp_path)
    with (record.folder.parent / "split.csv").open("a") as file:
        file.write("x,0,class 0,x,train\n")
    with pytest.raises(UserError, match="was changed"):
        record.manifest()


def test_story_numbers(tmp_path: Path) -> None:
    told = read_story(write_trial(tmp_path, "flex", story=STORY, epochs=[EPOCHS[0], *TOLD]))
    assert told.epochs.tolist() == [6, 30]  # query2 before query10
    assert told.recall.shape == (12, 4) and told.recall[5, 0] == 0.5
    np.testing.assert_array_equal(told.accuracy[0], [0.5, 1, np.nan, 0])
    assert told.difficulty.shape == (2, 4)
    assert told.quotas.tolist() == [[3, 2, 2, 1], [7, 0, 0, 0], [2, 0, 0, 0]]
    assert told.pool.tolist() == [[297, 98, 28, 9], [290, 98, 28, 9], [288, 98, 28, 9]]


def test_a_story_without_queries(tmp_path: Path) -> None:
    told = read_story(write_trial(tmp_path, "flex", story={"anchors": STORY["anchors"]}, epochs=TOLD[:6]))
    assert told.accuracy.shape == (0, 4) and told.quotas.shape == told.pool.shape == (1, 4)


@pytest.mark.parametrize("story", [{}, {"anchors": [1]}, {"anchors": {"other": 1}}], ids=str)
def test_other_methods_have_no_story(tmp_path: Path, story: Any) -> None:
    assert not has_story(write_trial(tmp_path, "mine", story=story))


@pytest.mark.parametrize("wrong", [{"query2": 5}, {"anchors": {**STORY["anchors"], "counts": "x", "edges": [["x"]]}}])
def test_a_story_of_another_form_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    record = write_trial(tmp_path, "flex", story={**STORY, **wrong}, epochs=TOLD)
    for read in (read_story, lambda own: story_groups(own, np.zeros(435, dtype=int))):
        with pytest.raises(UserError, match=r"result\.json holds no story"):
            read(record)


def test_story_groups(tmp_path: Path) -> None:
    labels = split_of(COUNTS, COUNTS).part("train")[1]
    groups = story_groups(write_trial(tmp_path, "flex", story=STORY), labels)
    shown = {name: [rows.tolist() for rows in classes] for name, classes in groups.items()}
    nothing = [[], [], []]
    assert shown == {
        "anchors": [[7, 2, 9], [301, 300], [410, 405], [430]],
        "edges (farthest\nfrom the prototype)": [[9, 8, 6, 5], [399], [429], [439]],
        "queried, highest\ninformation": [[51, 21, 26, 25], *nothing],
        "in the pool, lowest\ninformation": [[88, 95, 80], [391, 390], [], []],
    }
    random = write_trial(tmp_path / "random", "flex", story=STORY, hyperparameters={"query": "random"})
    assert sum("est\nrandom score" in name for name in story_groups(random, labels)) == 2


def test_pictures_of_a_real_flex_trial(
    make_spec: Any, tiny_dataset: SplitDataset, tiny_protocol: Protocol, tmp_path: Path, capsys: Any
) -> None:
    stuck = replace(tiny_protocol, lr=1e-9)
    spec = make_spec("flex", protocol=stuck, query_patience=0.01, warmup=0.2, ssl_budget=0.3)
    run_trial(spec)
    results, out = tmp_path / "results", tmp_path / "out"
    (record,) = find_records(results)
    told, labels = read_story(record), tiny_dataset.manifest.part("train")[1]
    assert len(told.epochs) > 1 and len(told.recall) == stuck.epochs
    np.testing.assert_array_equal(told.recall[told.epochs - 1], told.accuracy)
    np.testing.assert_array_equal(told.pool[:-1] - told.quotas[1:], told.pool[1:])
    np.testing.assert_array_equal(told.pool[0] + told.quotas[0], np.bincount(labels))
    for classes in story_groups(record, labels).values():
        assert all((labels[rows] == class_id).all() and len(rows) <= 4 for class_id, rows in enumerate(classes))

    cache = results / "cache" / "images"
    assert find_store(record, tiny_dataset.manifest, results) == f"no images: {cache} does not hold them"
    command = ["--results", str(results), "--out", str(out), "--figure", "story", "samples"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 2 and captured.err.count("no images") == 2
    assert len(captured.out.splitlines()) == 2 == len(list(out.glob("*/*")))

    store = tiny_dataset.store().folder
    (cache / store.name).mkdir(parents=True)
    assert "is not readable" in str(find_store(record, tiny_dataset.manifest, results))
    (cache / store.name).rmdir()
    (cache / store.name).symlink_to(store)
    assert find_store(record, tiny_dataset.manifest, results).size == 19
    assert main(command) == 0
    assert capsys.readouterr().err == "" and len(list(out.glob("*/*"))) == 6
    (cache / f"{store.name}-again").symlink_to(store)
    assert "several" in find_store(record, tiny_dataset.manifest, results)
