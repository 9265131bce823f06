"""Pictures: the numbers in them, their files, and the command line; from records written by hand and a real trial."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import ltbench.benchmarks
from ltbench.benchmarks.analysis.metrics import evaluate, frequency_groups, wilson_interval
from ltbench.benchmarks.analysis.records import SCHEMA, Record, find_records
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.figures import main
from ltbench.benchmarks.plots.accuracy import class_shares, confusion, confusion_counts, per_class_accuracy
from ltbench.benchmarks.plots.calibration import BINS, reliability, reliability_bins
from ltbench.benchmarks.plots.images import class_counts, find_store, manifest_of, mosaic
from ltbench.benchmarks.plots.pictures import few_rows, pictures, trial_pictures
from ltbench.benchmarks.plots.story import has_story, read_story, story_groups
from ltbench.benchmarks.plots.style import DPI, png_of, save, series_style, svg_of, wrapped
from ltbench.benchmarks.plots.training import mean_and_range, read_curves, stage_starts, training_curves
from ltbench.benchmarks.training.protocol import PRESETS, Protocol
from ltbench.benchmarks.training.trial import run_trial
from ltbench.datasets.loading import SplitDataset
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import json_digest, write_arrays, write_json, write_lines

QUICK = PRESETS["quick"]
COUNTS = (300, 100, 30, 10)
PLOTS = ("style", "training", "accuracy", "calibration", "images", "story")
MODULES = ["figures", *(f"plots.{name}" for name in PLOTS)]
EPOCHS = (
    {"stage": "pretrain", "epoch": 0, "terms": {"loss": 5.0}, "val_recall": None, "val_loss": None},
    {"stage": "train", "epoch": 0, "terms": {"loss": 1.0}, "val_recall": [0.5, 0.25, None, 0.0], "val_loss": 1.5},
    {"stage": "train", "epoch": 1, "terms": {}, "val_recall": [1.0, 0.5, 0.5, 0.0], "val_loss": 0.5},
)


def split(counts: Sequence[int], test_counts: Sequence[int]) -> Manifest:
    sizes = {"train": counts, "val": [2] * len(counts), "test": test_counts}
    parts = np.concatenate([np.repeat(part, sum(own)) for part, own in sizes.items()])
    labels = np.concatenate([np.repeat(np.arange(len(counts)), own) for own in sizes.values()])
    ids = np.array([f"i{number:05d}" for number in range(len(labels))])
    return Manifest(ids, labels, np.array([f"class {label}" for label in labels]), ids, parts)


def add(
    results: Path,
    method: str = "ce",
    trial: int = 0,
    *,
    logits: np.ndarray | None = None,
    counts: Sequence[int] = COUNTS,
    test_counts: Sequence[int] = (20, 20, 20, 20),
    names: Sequence[str] | None = None,
    protocol: Protocol = QUICK,
    epochs: Sequence[Mapping[str, Any]] = EPOCHS,
    **others: Any,
) -> Record:
    """Write the record of one trial; without `logits` it is right two times in three."""
    manifest = split(counts, test_counts)
    ids, labels = manifest.part("test")
    if logits is None:
        rng = np.random.default_rng([trial, *method.encode()])
        logits = 2 * np.eye(len(counts))[np.where(rng.random(len(labels)) < 0.67, labels, 0)]
        logits = (logits + rng.random(logits.shape)).astype(np.float32)
    groups = frequency_groups(counts)
    result = {
        "schema": SCHEMA,
        **{"dataset": "toy", "variant": "", "title": "Toy lesions", "split": "paper", "ratio": 30.0, "notes": []},
        **{"class_names": names or [f"class {label}" for label in range(len(counts))], "class_counts": counts},
        **{"groups": groups, "method": method, "hyperparameters": {}, "changed": {}, "trial": trial, "seed": trial},
        **{"protocol": asdict(protocol), "protocol_digest": protocol.digest(), "split_digest": manifest.digest},
        **{"licence": "", "citation": "", "natural": False, "special_classes": [], "overlap": {}, "pixels": ""},
        **{"code_version": "0", "versions": {}, "device": "cpu", "threads": 1, "plugin": None},
        "selection": {"metric": "val_mean_class_accuracy", "score": 0.5, "stage": "train", "epoch": 1},
        **dict.fromkeys(("val", "test"), evaluate(labels, logits, groups)),
        "cost": {
            **{"train_seconds": 1.0, "images_seen": 10, "forward_images": 10, "parameters": 1},
            **{"peak_memory_mib": None, "stages": []},
        },
        **{"story": {}, **others},
    }
    tag = json_digest([result["changed"], protocol.digest()])[:8]
    folder = results / "toy-paper-r30" / f"{method}-{tag}" / f"trial{trial}"
    write_arrays(folder / "predictions.npz", {"test_ids": ids, "test_labels": labels, "test_logits": logits})
    write_lines(folder / "metrics.jsonl", epochs)
    manifest.write(folder.parent / "split.csv")
    write_json(folder / "result.json", result)
    return Record.read(folder)


def rows_of(results: Path) -> tuple[Row, ...]:
    (setting,) = settings_of(find_records(results))
    return setting.rows


def row_of(results: Path, name: str = "ce") -> Row:
    return next(row for row in rows_of(results) if row.name == name)


STORY = {
    "anchors": {
        **{"counts": [3, 2, 2, 1], "indices": [7, 2, 9, 301, 300, 410, 405, 430]},
        "edges": [9, 8, 6, 5, 4, 399, 429, 439],
    },
    **{
        f"query{number}": {
            **{"epoch": 3 * number, "accuracy": [0.5, 1.0, None, 0.0], "difficulty": [0.8, 0.0, 1.6, 1.6]},
            **{"quotas": [len(rows), 0, 0, 0], "queried": rows, "information": scores},
            **{"lowest": [90 - number, 95, 390, 391], "lowest_information": [0.001 * number, 0.01, 0.02, 0.0]},
            "pool_left": [297 - left, 98, 28, 9],
        }
        for number, rows, scores, left in (
            (10, [50, 51], [0.1, 0.9], 9),
            (2, [20, 21, 22, 23, 24, 25, 26], [0.2, 0.8, 0.4, 0.5, 0.3, 0.6, 0.7], 7),
        )
    },
}
TOLD = [
    {"stage": "anchors", "epoch": epoch, "terms": {"loss": 1.0}, "val_recall": [0.1 * epoch] * 4, "val_loss": 1.0}
    for epoch in range(6)
]
TOLD += [{**EPOCHS[2], "stage": stage, "epoch": epoch} for stage in ("query2", "query10") for epoch in range(3)]


# ---- curves


def test_curves_are_those_of_the_file(tmp_path: Path) -> None:
    curves = read_curves(add(tmp_path))
    assert curves.stages == ("pretrain", "train", "train") and curves.selected == 2
    np.testing.assert_array_equal(curves.accuracy, [np.nan, 0.25, 0.5])
    np.testing.assert_array_equal(curves.val_loss, [np.nan, 1.5, 0.5])
    np.testing.assert_array_equal(curves.train_loss, [5.0, 1.0, np.nan])
    assert curves.recall.shape == (3, 4) and np.isnan(curves.recall[1, 2])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]\n",
        '{"stage": "a"}\n',
        '{"stage": "a", "epoch": 0, "terms": {}, "val_loss": 1, "val_recall": [1]}\n',
        '{"stage": "a", "epoch": 0, "terms": {"loss": "x"}, "val_loss": 1, "val_recall": null}\n',
    ],
    ids=str,
)
def test_corrupt_metrics_are_named(tmp_path: Path, text: str | None) -> None:
    record = add(tmp_path)
    path = record.folder / "metrics.jsonl"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_curves(record)


def test_mean_and_range_of_trials_of_different_length() -> None:
    mean, low, high = mean_and_range([np.array([1.0, np.nan, 3.0]), np.array([3.0, np.nan])])
    np.testing.assert_array_equal(mean, [2, np.nan, 3])
    np.testing.assert_array_equal(low, [1, np.nan, 3])
    np.testing.assert_array_equal(high, [3, np.nan, 3])


def test_training_curves_draw_mean_reported_epochs_and_stages(tmp_path: Path) -> None:
    add(tmp_path, trial=0)
    add(tmp_path, trial=1, epochs=EPOCHS[1:], selection={"metric": "", "score": 0.5, "stage": "train", "epoch": 0})
    add(tmp_path, "rs")
    row = row_of(tmp_path)
    assert stage_starts([read_curves(record) for record in row.records]) == {"pretrain": 1.0, "train": 1.5}
    left, right = training_curves(row, row_of(tmp_path, "rs")).axes
    lines = {line.get_label(): line.get_ydata() for line in (*left.lines, *right.lines)}
    np.testing.assert_allclose(lines["validation"], [25, (25 + 50) / 2, 50])
    np.testing.assert_allclose(sorted(lines["reported epoch"]), [25, 50])
    np.testing.assert_allclose(lines["rs, validation (mean)"], [np.nan, 25, 50])
    np.testing.assert_allclose(lines["training: the stage's own loss"], [3, 1, np.nan])


# ---- accuracy and calibration


def test_class_shares_and_confusion(tmp_path: Path) -> None:
    predicted = [[0, 0, 1, 1, 1, 3], [0, 3, 1, 0, 1, 3]]  # of true classes 0 0 1 1 1 3; class 2 has no test image
    for trial, own in enumerate(predicted):
        add(tmp_path, trial=trial, logits=np.eye(4)[own], test_counts=(2, 3, 0, 1))
    row = row_of(tmp_path)
    share, low, high = class_shares(row)
    np.testing.assert_allclose(share, [0.75, 5 / 6, np.nan, 1])
    for label in range(4):
        estimate = row.class_estimate(label)
        np.testing.assert_array_equal((low[label], high[label]), (estimate.low, estimate.high))
    assert np.isnan([low[2], high[2]]).all() and (low[3], high[3]) == pytest.approx(wilson_interval(1, 1))
    assert confusion_counts(row).tolist() == [[3, 0, 0, 1], [1, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]]
    axes = confusion(row).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array()[0], [75, 0, 0, 25])
    assert [text.get_text() for text in axes.texts[8:12]] == ["n/a"] * 4
    (container,) = per_class_accuracy([row]).axes[0].containers
    np.testing.assert_allclose(container.lines[0].get_xdata(), sorted(COUNTS))
    np.testing.assert_allclose(container.lines[0].get_ydata(), 100 * share[::-1])


def test_classes_of_one_size_stand_side_by_side(tmp_path: Path) -> None:
    add(tmp_path, counts=(50, 50, 20, 70))
    (container,) = per_class_accuracy(rows_of(tmp_path)).axes[0].containers
    assert container.lines[0].get_xdata().tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(container.lines[0].get_ydata(), 100 * class_shares(row_of(tmp_path))[0][[3, 0, 1, 2]])


def test_reliability_bins_are_those_of_the_ece(tmp_path: Path) -> None:
    add(tmp_path, trial=0)
    size, confidence, accuracy = reliability_bins(row_of(tmp_path))
    assert len(size) == BINS and size.sum() == 80 and (np.isnan(accuracy) == (size == 0)).all()
    ece = np.nansum(size * np.abs(confidence - accuracy)) / 80
    assert ece == pytest.approx(row_of(tmp_path).values("ece")[0], rel=1e-9)


def test_reliability_bins_by_hand(tmp_path: Path) -> None:
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1], [0.68, 0.12, 0.1, 0.1], [0.2, 0.15, 0.35, 0.3]])
    for trial in range(2):
        add(tmp_path, trial=trial, logits=np.log(probabilities), test_counts=(1, 1, 1, 0))
    size, confidence, accuracy = reliability_bins(row_of(tmp_path))
    assert size.tolist() == [0] * 5 + [2, 0, 0, 0, 0, 4, 0, 0, 0, 0]
    assert (accuracy[5], accuracy[10]) == (1, 0.5)
    assert confidence[10] == pytest.approx(0.69)
    assert len(reliability(rows_of(tmp_path)).axes) == 2


# ---- data


def test_class_counts_are_those_of_the_split(tmp_path: Path) -> None:
    record = add(tmp_path, counts=(10, 300, 30, 0), test_counts=(20, 0, 20, 20))
    axes = class_counts(record.result.data.class_names, manifest_of(record)).axes[0]
    heights = [[bar.get_height() for bar in container.patches] for container in axes.containers]
    assert heights == [[300, 30, 10, 0], [2] * 4, [0, 20, 20, 20]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["class 1", "class 2", "class 0", "class 3"]


def test_mosaic_puts_images_side_by_side() -> None:
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 20, 20), dtype=np.uint8)
    image = mosaic(pixels, [np.array([2, 1]), np.array([0])], columns=2)
    assert image.shape == (41, 41, 3)
    assert (image[:20, :20] == 2).all() and (image[:20, 21:] == 1).all() and (image[21:, :20] == 0).all()
    assert (image[20] == 255).all() and (image[:, 20] == 255).all() and (image[21:, 21:] == 255).all()


def test_a_changed_split_is_refused(tmp_path: Path) -> None:
    record = add(tmp_path)
    with (record.folder.parent / "split.csv").open("a") as file:
        file.write("x,0,class 0,x,train\n")
    with pytest.raises(UserError, match="was changed"):
        manifest_of(record)


# ---- the story of a flex trial


def test_story_numbers(tmp_path: Path) -> None:
    told = read_story(add(tmp_path, "flex", story=STORY, epochs=[EPOCHS[0], *TOLD]))
    assert told.epochs.tolist() == [6, 30]  # query2 before query10
    assert told.recall.shape == (12, 4) and told.recall[5, 0] == 0.5
    np.testing.assert_array_equal(told.accuracy[0], [0.5, 1, np.nan, 0])
    assert told.difficulty.shape == (2, 4)
    assert told.quotas.tolist() == [[3, 2, 2, 1], [7, 0, 0, 0], [2, 0, 0, 0]]
    assert told.pool.tolist() == [[297, 98, 28, 9], [290, 98, 28, 9], [288, 98, 28, 9]]


def test_a_story_without_queries(tmp_path: Path) -> None:
    told = read_story(add(tmp_path, "flex", story={"anchors": STORY["anchors"]}, epochs=TOLD[:6]))
    assert told.accuracy.shape == (0, 4) and told.quotas.shape == told.pool.shape == (1, 4)


@pytest.mark.parametrize("story", [{}, {"anchors": [1]}, {"anchors": {"other": 1}}], ids=str)
def test_other_methods_have_no_story(tmp_path: Path, story: Any) -> None:
    assert not has_story(add(tmp_path, "mine", story=story))


def test_story_groups(tmp_path: Path) -> None:
    labels = split(COUNTS, COUNTS).part("train")[1]
    groups = story_groups(add(tmp_path, "flex", story=STORY), labels)
    shown = {name: [rows.tolist() for rows in classes] for name, classes in groups.items()}
    nothing = [[], [], []]
    assert shown == {
        "anchors": [[7, 2, 9], [301, 300], [410, 405], [430]],
        "edges (farthest\nfrom the prototype)": [[9, 8, 6, 5], [399], [429], [439]],
        "queried, highest\ninformation": [[51, 21, 26, 25], *nothing],
        "in the pool, lowest\ninformation": [[88, 95, 80], [391, 390], [], []],
    }
    random = add(tmp_path / "random", "flex", story=STORY, hyperparameters={"query": "random"})
    assert [name for name in story_groups(random, labels) if "random score" in name] == [
        "queried, highest\nrandom score",
        "in the pool, lowest\nrandom score",
    ]


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

    assert (
        find_store(record, tiny_dataset.manifest, results)
        == f"no images: {results / 'cache' / 'images'} does not hold them"
    )
    command = ["--results", str(results), "--out", str(out), "--figure", "story", "samples"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 2 and captured.err.count("no images") == 2
    assert len(captured.out.splitlines()) == 2 == len(list(out.glob("*/*")))

    store, cache = tiny_dataset.store().folder, results / "cache" / "images"
    cache.mkdir(parents=True)
    (cache / store.name).symlink_to(store)
    assert find_store(record, tiny_dataset.manifest, results).size == 19
    assert main(command) == 0
    assert capsys.readouterr().err == "" and len(list(out.glob("*/*"))) == 6
    (cache / f"{store.name}-again").symlink_to(store)
    assert "several" in find_store(record, tiny_dataset.manifest, results)


# ---- files


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods; one is flex with a story."""
    folder = tmp_path_factory.mktemp("results")
    for trial in range(2):
        add(folder, trial=trial)
    add(folder, "flex", story=STORY, epochs=TOLD, changed={"query": "random", "selection": "edge"})
    add(folder, "rs")
    return folder


def draw(results: Path) -> dict[str, Figure]:
    """Draw all pictures that need no image store, by name; of those that each row has, flex's alone."""
    rows = rows_of(results)
    flex = [row for row in rows if row.result.method == "flex"]
    found = [
        *pictures(("per-class", "reliability", "counts"), rows, results, few_rows(rows)),
        *pictures(("curves", "confusion", "story", "samples"), flex, results, flex),
    ]
    drawn = {picture.name: picture.draw() for picture in found}
    return {name: figure for name, figure in drawn.items() if isinstance(figure, Figure)}


def test_files_are_valid_and_the_same_whenever_they_are_drawn(results: Path, tmp_path: Path) -> None:
    first = {name: (png_of(figure), svg_of(figure)) for name, figure in draw(results).items()}
    assert len(first) == 6
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "svg.fonttype": "none", "lines.linewidth": 5}):
        again = draw(results)
        assert {name: (png_of(figure), svg_of(figure)) for name, figure in again.items()} == first
    for name, (png, svg) in first.items():
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            assert image.format == "PNG" and image.size == tuple((again[name].get_size_inches() * DPI).astype(int))
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        references = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert all(reference.startswith(("#", "data:")) for reference in references)
        assert b"<!DOCTYPE" not in svg and not re.search(rb"url\((?!#)|@import|<script|<text", svg)
    for path, data in zip(save(again["counts"], tmp_path / "counts"), first["counts"], strict=True):
        assert path.read_bytes() == data


@pytest.mark.parametrize(("method", "told"), [("flex", {"story"}), ("ce", set())])
def test_pictures_of_one_trial(results: Path, method: str, told: set[str]) -> None:
    record = next(row.records[-1] for row in rows_of(results) if row.result.method == method)
    drawn = {picture.kind: picture.draw() for picture in trial_pictures(record)}
    assert drawn.keys() == {"curves", "confusion", "reliability"} | told
    assert all(isinstance(figure, Figure) for figure in drawn.values())
    assert "1 trial" in drawn["curves"].get_suptitle()  # not its row's other trials


def test_another_process_draws_the_same_bytes(results: Path, tmp_path: Path) -> None:
    command = [sys.executable, Path(ltbench.benchmarks.__file__).with_name("figures.py"), "--figure", "per-class"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    subprocess.run([*command, "--results", results, "--out", tmp_path], env=environment, check=True)
    rows = rows_of(results)
    figure = per_class_accuracy(rows)
    assert (tmp_path / "toy-paper-r30" / "per-class.svg").read_bytes() == svg_of(figure)
    assert (tmp_path / "toy-paper-r30" / "per-class.png").read_bytes() == png_of(figure)


def test_importing_the_modules_imports_no_matplotlib() -> None:
    imports = "; ".join(f"import ltbench.benchmarks.{name}" for name in MODULES)
    code = f"{imports}; import sys; assert not [name for name in sys.modules if name.startswith('matplotlib')]"
    subprocess.run([sys.executable, "-c", code], check=True)


LONG = "actinic keratoses and intraepithelial carcinoma (Bowen's disease)"


@pytest.mark.parametrize("counts", [(5, 4), tuple(1000 // 2**label + 3 for label in range(14))], ids=len)
def test_nothing_is_cut_off(tmp_path: Path, counts: tuple[int, ...]) -> None:
    """Long names of classes and methods, two classes and fourteen, one of them without a test image, $ in a name."""
    names = [LONG, "$x^2$ & <y>", *(f"class number {label}" for label in range(2, len(counts)))]
    shared = {"counts": counts, "names": names, "test_counts": [0] + [4] * (len(counts) - 1)}
    recalls = [{**row, "val_recall": row["val_recall"] and [0.5] * len(counts)} for row in EPOCHS]
    changed = {"query_resets_patience": False, "selection": "edge", "query": "random", "pretrain": "none"}
    told = {"anchors": {"counts": [1] * len(counts), "indices": []}}
    add(tmp_path, "flex", changed=changed, story=told, epochs=recalls, **shared)
    for number in range(4):
        add(tmp_path, f"method_with_a_long_name_{number}", epochs=recalls, **shared)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in draw(tmp_path).items():
            png_of(figure, 50)
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert box.x0 > -0.02 and box.y0 > -0.02, name
            assert box.x1 < width + 0.02 and box.y1 < height + 0.02, name


def test_styles_of_many_series_differ() -> None:
    styles = [tuple(series_style(number).values()) for number in range(64)]
    assert len(set(styles)) == 64
    for one, other in itertools.pairwise(styles):
        assert all(mine != theirs for mine, theirs in zip(one, other, strict=True))


def test_wrapped() -> None:
    assert wrapped("a long-tailed name", 12) == "a\nlong-tailed\nname"
    assert wrapped("one two three four", 8, lines=2) == "one two\nthree …"
    assert wrapped("", 12) == ""


# ---- which pictures, and the command line


def test_the_baseline_is_among_the_few_rows(tmp_path: Path) -> None:
    labels = split(COUNTS, (20,) * 4).part("test")[1]
    for number in range(8):
        add(tmp_path, f"m{number}", logits=np.eye(4)[labels])
    add(tmp_path)
    rows = rows_of(tmp_path)
    assert [row.name for row in few_rows(rows, 3)] == [rows[0].name, rows[1].name, "ce"]
    assert [row.name for row in few_rows(rows[:8], 3)] == [row.name for row in rows[:3]]
    assert few_rows(rows, 9) == list(rows)


def test_command_line_draws_what_is_asked_for(results: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["--results", str(results), "--out", str(tmp_path), "--figure", "curves", "counts", "--method"]
    assert main([*command, "flex"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(paths) == sorted(tmp_path.glob("*/*")) and len(paths) == 4
    assert {path.name.partition("-")[0] for path in paths} == {"curves", "counts.png", "counts.svg"}
    assert main([*command, "flex (query=random, selection=edge)", "rs"]) == 0
    assert len(list(tmp_path.glob("*/curves-*.png"))) == 2


def test_settings_of_one_folder_are_kept_apart(tmp_path: Path) -> None:
    add(tmp_path / "results")
    add(tmp_path / "results", "rs", protocol=replace(QUICK, epochs=31))
    out = tmp_path / "out"
    assert main(["--results", str(tmp_path / "results"), "--out", str(out), "--figure", "counts"]) == 0
    assert len(list(out.glob("toy-paper-r30-*/counts.png"))) == 2


def test_rows_left_out_of_shared_axes_are_told(tmp_path: Path, capsys: Any) -> None:
    for number in range(7):
        add(tmp_path / "results", f"m{number}")
    command = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"), "--figure", "per-class"]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert "per-class shows" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--figure", "confusoin"], "did you mean 'confusion'?"),
        (["--method", "flxe"], "did you mean 'flex'?"),
        (["--results", "nowhere"], "does not exist"),
        (["--figure", "story", "--method", "ce"], "none of the chosen figures (story) exists"),
        (["--figure"], "expected at least one argument"),
    ],
    ids=str,
)
def test_command_line_refuses_in_one_line(
    results: Path, tmp_path: Path, capsys: Any, arguments: list[str], reason: str
) -> None:
    assert main(["--results", str(results), "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and reason in captured.err and len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_command_line_names_a_corrupt_file(tmp_path: Path, capsys: Any) -> None:
    record = add(tmp_path / "results")
    (record.folder / "metrics.jsonl").write_text("{")
    assert main(["--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"), "--figure", "curves"]) == 2
    error = capsys.readouterr().err
    assert str(record.folder / "metrics.jsonl") in error and len(error.splitlines()) == 1
