"""Tables from records written by hand: numbers, what shares a table, what is told about what does not."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import reseal

from ltbench.benchmarks.analysis.advice.facts import advice_of
from ltbench.benchmarks.analysis.advice.text import lines_of
from ltbench.benchmarks.analysis.cells import range_text, signed
from ltbench.benchmarks.analysis.metrics import METRICS, wilson_interval
from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.rendering import KINDS, Table
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.statistics.comparisons import compared, dunnett, tukey
from ltbench.benchmarks.analysis.statistics.intervals import image_weights, interval
from ltbench.benchmarks.analysis.tables import COSTS, tables_of
from ltbench.benchmarks.training.protocol import PRESETS
from ltbench.errors import UserError
from ltbench.files import write_arrays

QUICK = PRESETS["quick"]
Add = Callable[..., dict[str, Any]]


def tables(results: Path, kind: str = "overview") -> list[Table]:
    return tables_of(kind, settings_of(find_records(results)))


@pytest.fixture
def results(tmp_path: Path, add_trials: Add) -> Path:
    """Two methods of three trials: one clearly better than the baseline."""
    add_trials(tmp_path, "my_best", 3, 0.95)
    add_trials(tmp_path, "ce", 3, 0.6, cost={"cpu_seconds": 5.0})
    return tmp_path


def scores(row: Row) -> np.ndarray:
    return row.right * image_weights(row.labels)


def column(table: Table, header: str) -> list[str]:
    place = list(table.headers).index(header)
    return [row[place].text for row in table.cells]


def test_numbers_are_those_of_the_trials(results: Path) -> None:
    (overview,), (metrics,), (cost,) = (tables(results, kind) for kind in ("overview", "metrics", "cost"))
    records = list(find_records(results))
    for method in ("my_best", "ce"):
        trials = [record.result for record in records if record.result.method == method]
        for table in (overview, metrics):
            row = table.frame.set_index("method").loc[method]
            assert row["n"] == 3
            for name in METRICS:
                values = [np.nan if trial.test[name] is None else trial.test[name] for trial in trials]
                assert row[name] == pytest.approx(np.mean(values), rel=1e-12, nan_ok=True)
                assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12, nan_ok=True)
        row = cost.frame.set_index("method").loc[method]
        assert row["train_seconds"] == 11.0 and row["train_seconds_sd"] == 1.0 and row["parameters"] == 77
        assert np.isnan(row["peak_memory_mib"])
    assert column(cost, COSTS["train_seconds"]) == ["11 ± 1", "11 ± 1*"]
    assert column(cost, COSTS["parameters"]) == ["77"] * 2
    assert column(cost, COSTS["peak_memory_mib"]) == ["n/a"] * 2
    assert "a device" in cost.notes[-1]
    (table,) = tables(results)
    for part in ("Toy lesions", "ratio 30", "split paper", "5" * 8, QUICK.digest()[:8], QUICK.backbone):
        assert part in table.title


def test_no_row_hides_its_steps_rates_stop_rules_and_warnings(tmp_path: Path, add_record: Add) -> None:
    stage: dict[str, Any] = {"name": "train", "cached": False, "seconds": 1.0}
    stage |= dict.fromkeys(("epochs", "steps", "images", "forward_images"), 100)
    second = {**stage, "name": "second", "steps": 50, "rates": [1.0, 10.0], "stopping": "late"}
    add_record(tmp_path, "ce", 0, 0.5, cost={"stages": [stage]})
    story = {"pretraining": {"warning": "taught little"}}
    add_record(tmp_path, "lws", 0, 0.6, cost={"stages": [stage, second]}, story=story)
    (overview,), (cost,) = (tables(tmp_path, kind) for kind in ("overview", "cost"))
    assert column(cost, "of ce's") == ["1.50", "1.00"]
    assert column(cost, "own learning rates") == ["second: x10", "-"]
    assert column(cost, "own stopping rules") == ["second: late", "-"]
    said = " ".join(overview.notes)
    for part in ("ce's: lws 1.50", "rates: lws", "rules: lws", "lws, 1 of 1 trials: taught little"):
        assert part in said


def test_an_ensemble_is_marked_as_one(tmp_path: Path, add_record: Add) -> None:
    for method, parameters in (("ce", 100), ("ncl", 300), ("lws", 101)):
        add_record(tmp_path, method, 0, 0.5, cost={"parameters": parameters})
    (overview,) = tables(tmp_path)
    (line,) = (note for note in overview.notes if "Several networks" in note)
    assert "ncl (3" in line and "3.00 times" in line and "lws" not in line


def test_tables_are_made_from_predictions_alone(results: Path) -> None:
    before = {kind: [table.frame for table in tables(results, kind)] for kind in KINDS}
    for record in find_records(results):
        reseal(record.folder, test={"mean_class_accuracy": record.result.test["mean_class_accuracy"]})
    for kind, frames in before.items():
        for old, new in zip(frames, tables(results, kind), strict=True):
            assert list(old.columns) == list(new.frame.columns)
            numbers = old.select_dtypes("number").to_numpy(float), new.frame.select_dtypes("number").to_numpy(float)
            np.testing.assert_allclose(*numbers, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("test", "mean_class_accuracy", 0.11),
        ("val", "macro_f1", 0.12),
        ("test", "confusion", []),
        ("val", "tail", None),
    ],
)
def test_a_record_that_contradicts_its_predictions_is_refused(results: Path, part: str, name: str, value: Any) -> None:
    record = next(iter(find_records(results)))
    reseal(record.folder, **{part: {**getattr(record.result, part), name: value}})
    with pytest.raises(UserError, match=r"predictions\.npz gives .* result\.json says .* --fresh"):
        tables(results)


@pytest.mark.parametrize("array", ["test_ids", "test_labels"])
def test_other_test_images_are_refused(results: Path, array: str) -> None:
    folders = [record.folder for record in find_records(results)]
    for folder in (own for own in folders if own.parent.name.startswith("ce")):
        arrays = read_predictions(folder / "predictions.npz")
        arrays[array] = np.roll(arrays[array], 1)
        write_arrays(folder / "predictions.npz", arrays)
        reseal(folder)
        with pytest.raises(UserError, match=r"other test images|says"):
            tables(results)


def test_ranks_differences_and_their_tests(results: Path, add_trials: Add) -> None:
    add_trials(results, "cb", 3, 0.58)
    (table,) = tables(results)
    frame = table.frame.set_index("method")
    assert frame["rank"].tolist() == [1, 2, 3] and frame.index[0] == "my_best"
    assert frame["mean_class_accuracy"].is_monotonic_decreasing
    (setting,) = settings_of(find_records(results))
    rows = {row.name: row for row in setting.rows}
    names = list(frame.index)
    everyone = np.stack([scores(rows[name]) for name in names])
    differing = dict(zip(names, compared(everyone, names.index("ce"), rows["ce"].labels, dunnett), strict=True))
    ranked = dict(zip(names, compared(everyone, 0, rows["ce"].labels, tukey), strict=True))
    for name in ("my_best", "cb"):
        own = differing[name]
        shown = frame.loc[name, ["delta", "delta_low", "delta_high", "p_baseline"]]
        np.testing.assert_allclose(shown.astype(float), [own.delta, own.low, own.high, own.p_value], rtol=1e-12)
    assert frame.loc["cb", "p_best"] == pytest.approx(ranked["cb"].p_value)
    assert frame.loc["ce", "delta"] == 0 and np.isnan(frame.loc["ce", "p_baseline"])
    assert not frame.loc["my_best", "open_baseline"] and frame.loc["cb", "open_baseline"]
    assert not frame["open_best"].any()
    low, high = frame.loc["ce", ["low", "high"]]
    assert low < frame.loc["ce", "mean_class_accuracy"] < high
    marked = [text.endswith(" ?") for text in column(table, "Δ ce")]
    assert marked == frame["open_baseline"].tolist()


def test_rows_that_are_equal_but_for_rounding_share_rank_and_bold_type(tmp_path: Path, add_record: Add) -> None:
    """Each is right on 1050 of 1500 images: means of five trials differ by the order of sums alone."""
    labels = np.repeat(np.arange(4), 75)
    of_trials = {"ce": [210] * 5, "rs": [201, 206, 211, 213, 219], "cb": [190, 203, 217, 221, 219]}
    of_trials["rw"] = [209, 209, 209, 209, 214]
    for method, right in of_trials.items():
        for trial, count in enumerate(right):
            predicted = np.where(np.random.default_rng(trial).permutation(300) < count, labels, (labels + 1) % 4)
            add_record(tmp_path, method, trial, 0, logits=np.eye(4)[predicted], test_counts=(75,) * 4)
    (setting,) = settings_of(find_records(tmp_path))
    assert len({row.accuracy.value for row in setting.rows}) > 1
    (table,) = tables(tmp_path)
    assert column(table, "rank") == ["1"] * 4
    place = table.headers.index("mean per-class accuracy")
    assert all(line[place].strong for line in table.cells)
    (ranked,) = tables(tmp_path, "ranks")
    assert set(ranked.frame["rank"]) == {2.5}
    (advice,) = advice_of([setting], "ce")
    assert advice.two_best.difference == 0 and "differ by 0.0 points; a true difference" in " ".join(lines_of(advice))


def test_what_is_rounded_to_0_has_no_sign() -> None:
    assert [signed(own) for own in (0.0, 3e-5, -3e-5, 6e-5, -6e-5)] == ["0.00", "0.00", "0.00", "+0.01", "-0.01"]
    assert range_text(-0.0003, 0.031) == "[0.0, 3.1]" and range_text(-0.0008, 0.0) == "[-0.1, 0.0]"


def test_classes_of_two_trials_without_an_interval_have_the_reason(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "ce", 2, 0.6, test_counts=(20, 9, 10, 0))
    (table,) = tables(tmp_path, "per-class")
    assert "n/a, two trials of fewer than 10 test images or groups of them: intervals of b." in table.notes
    assert any(line.startswith("n/a, no image of class d") for line in table.notes)
    add_trials(tmp_path, "ce", 3, 0.6, test_counts=(20, 9, 10, 0))
    assert not any("two trials" in line for line in tables(tmp_path, "per-class")[0].notes)


def test_what_chance_explains_is_open(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "ce", 3, 0.7)
    add_trials(tmp_path, "rs", 3, 0.7)
    (table,) = tables(tmp_path)
    assert table.frame["open_best"].tolist() == [False, True]
    accuracy = column(table, "mean per-class accuracy")
    assert not accuracy[0].endswith("?") and accuracy[1].endswith(" ?")
    assert any("?: " in note for note in table.notes)
    assert [row[2].strong for row in table.cells] == [True, False]


def test_without_the_baseline_there_is_no_difference(tmp_path: Path, add_record: Add) -> None:
    add_record(tmp_path, "rs", 0, 0.7)
    (table,) = tables(tmp_path)
    assert table.frame["delta"].isna().all() and column(table, "Δ ce") == ["n/a"]
    assert "Δ n/a, ce is not among the rows shown." in table.notes
    for version in ({"a": 1}, {"a": 2}):
        add_record(tmp_path, "ce", 0, 0.7, hyperparameters=version)
    (table,) = tables(tmp_path)
    assert "Δ n/a, there are several versions of ce." in table.notes


def test_one_trial_has_no_spread_and_says_so(tmp_path: Path, add_record: Add) -> None:
    add_record(tmp_path, "ce", 0, 0.7)
    (table,) = tables(tmp_path)
    assert table.frame["mean_class_accuracy_sd"].isna().all() and "±" not in table.cells[0][2].text
    assert any("not the methods" in note for note in table.notes)
    assert not any("?" in note or "2 trials" in note for note in (*table.notes, table.title))


@pytest.mark.parametrize("trials", [1, 2])
def test_two_trials_of_few_rows_say_what_is_not_tested(trials: int, tmp_path: Path, add_trials: Add) -> None:
    for name, accuracy in (("rs", 0.7), ("cb", 0.8), ("rw", 0.9)):
        add_trials(tmp_path, name, 2, accuracy)
    add_trials(tmp_path, "ce", trials, 0.6)
    table = tables(tmp_path)[0]
    notes = " ".join(table.notes)
    assert set(table.frame["n"]) == {2} and ("these networks" in notes) == (trials == 1)
    assert ("No test against the best for two trials" in notes) == (trials == 1)  # four rows are enough


def test_rows_of_other_trials_are_in_a_table_of_their_own(results: Path, add_record: Add) -> None:
    add_record(results, "rw", 1, 0.8, changed={"scheme": "sqrt"})
    for kind in ("overview", "ratios", "groups", "per-class", "cost", "metrics"):
        first, second = tables(results, kind)
        assert set(first.frame["method"]) == {"my_best", "ce"} and set(first.frame["n"]) == {3}
        assert set(second.frame["method"]) == {"rw (scheme=sqrt)"} and set(second.frame["n"]) == {1}
        assert any("rows of other trials are not mixed in" in note for note in second.notes)
    (_, second) = tables(results)
    (setting,) = settings_of(find_records(results))
    rows = {row.name: row for row in setting.rows}
    expected = scores(rows["rw (scheme=sqrt)"]).sum() - scores(rows["ce"])[1].sum()
    assert second.frame["delta"].tolist() == pytest.approx([expected])  # with the same trial of the baseline
    assert "Δ is over the trials that ce has too: 1." in second.notes


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"protocol": replace(QUICK, epochs=31)}, "epochs 31, not 20"),
    ({"variant": "other"}, "variant other, not none"),
    ({"split": "lesion"}, "split lesion, not paper"),
    ({"split_digest": "6" * 64}, "images of split 66666666, not 55555555"),
    ({"threads": 2}, "2 CPU threads a trial, not 1"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES)
@pytest.mark.parametrize("kind", ["overview", "ratios"])
def test_other_settings_never_share_a_table(
    results: Path, add_trials: Add, change: dict[str, Any], told: str, kind: str
) -> None:
    add_trials(results, "rs", 3, 0.99, **change)
    found = tables(results, kind)
    assert sorted(sorted(table.frame["method"].unique()) for table in found) == [["ce", "my_best"], ["rs"]]
    (line,) = [note for table in found for note in table.notes if note.startswith("Not mixed with an earlier table")]
    swapped = re.sub(r"(\S+)( CPU threads a trial)?, not (\S+)", r"\3\2, not \1", told)  # whichever is the later
    assert told in line or swapped in line


@pytest.mark.parametrize("change", [{"ratio": 31.0}, {"dataset": "other"}])
def test_other_data_and_ratios_are_other_tables(results: Path, add_record: Add, change: dict[str, Any]) -> None:
    add_record(results, "rs", 0, 0.99, **change)
    assert sorted(sorted(table.frame["method"]) for table in tables(results)) == [["ce", "my_best"], ["rs"]]


def test_ratios_are_the_columns_of_one_table(tmp_path: Path, add_record: Add) -> None:
    for ratio in (500.0, 20.0, 100.0):
        for trial in range(2):
            add_record(tmp_path, "ce", trial, 0.5, ratio=ratio, split_digest=str(int(ratio))[0] * 64)
            if ratio != 20:
                add_record(tmp_path, "rs", trial, 0.9, ratio=ratio, split_digest=str(int(ratio))[0] * 64)
    (table,) = tables(tmp_path, "ratios")
    assert list(table.headers) == ["method", "ratio 20", "Δ ce", "ratio 100", "Δ ce", "ratio 500", "Δ ce"]
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in table.cells}
    assert cells["rs"][:2] == ["n/a", "n/a"] and cells["ce"][1::2] == ["0.00"] * 3
    values = table.frame.set_index(["method", "ratio"])["mean_class_accuracy"]
    assert cells["rs"][2].startswith(f"{100 * values['rs', 100.0]:.2f} ± ")
    assert "n = 2 trials" in table.notes[-1]


def test_other_sizes_are_no_columns_of_the_same_table(results: Path, add_trials: Add) -> None:
    add_trials(results, "ce", 3, 0.6, ratio=50.0, class_counts=(500, 100, 30, 10), split_digest="7" * 64)
    found = tables(results, "ratios")
    assert len(found) == 2 and any("largest class 500, not 300" in note for note in found[1].notes + found[0].notes)


def test_groups_are_means_of_their_classes(results: Path) -> None:
    (table,) = tables(results, "groups")
    (setting,) = settings_of(find_records(results))
    best = next(row for row in setting.rows if row.name == "my_best")
    recalls = best.recalls()
    frame = table.frame.set_index("method")
    row, score = frame.loc["my_best"], frame["mean_of_group_means"]
    means = {name: recalls[:, list(own)].mean() for name, own in setting.result.data.groups.items()}
    assert {name: row[name] for name in means} == pytest.approx(means)
    assert score["my_best"] == pytest.approx(np.mean(list(means.values())))
    assert row["delta"] == pytest.approx(score["my_best"] - score["ce"])


def test_classes_have_intervals(results: Path, tmp_path: Path, add_record: Add) -> None:
    """Over trials and images, as the whole table; of one trial Wilson's, which csv has in any case."""
    (table,) = tables(results, "per-class")
    assert list(table.headers) == ["method", "a (300)", "b (100)", "c (30)", "d (10)", "n"]
    (setting,) = settings_of(find_records(results))
    row = next(row for row in setting.rows if row.name == "ce")
    frame = table.frame[table.frame["method"] == "ce"].set_index("class")
    for label, name in enumerate("abcd"):
        own = row.labels == label
        expected = interval(row.right[:, own] / own.sum(), row.labels[own])
        assert frame.loc[name, "accuracy"] == pytest.approx(expected.value) == row.recalls()[:, label].mean()
        assert tuple(frame.loc[name, ["accuracy_low", "accuracy_high"]]) == (expected.low, expected.high)
        assert tuple(frame.loc[name, ["wilson_low", "wilson_high"]]) == wilson_interval(20 * expected.value, 20)
    add_record(tmp_path / "one", "ce", 0, 0.6)
    (table,) = tables(tmp_path / "one", "per-class")
    ends = table.frame[["accuracy_low", "accuracy_high"]].to_numpy()
    np.testing.assert_allclose(ends, table.frame[["wilson_low", "wilson_high"]].to_numpy(), rtol=1e-12)
    assert "Wilson" in table.notes[0]


def test_groups_have_intervals_and_tests(results: Path, add_trials: Add) -> None:
    add_trials(results, "cb", 3, 0.62)
    (table,) = tables(results, "groups")
    frame, rows = table.frame.set_index("method"), {row.name: row for row in settings_of(find_records(results))[0].rows}
    groups = rows["ce"].result.data.groups
    weights = np.zeros(4)
    for members in groups.values():
        weights[list(members)] += 1 / (len(groups) * len(members))
    assert len({*weights}) > 1  # not the mean over classes
    for name, row in rows.items():
        tail = np.isin(row.labels, groups["tail"])
        expected = interval(row.right[:, tail] * image_weights(row.labels[tail]), row.labels[tail])
        assert tuple(frame.loc[name, ["tail_low", "tail_high"]]) == pytest.approx((expected.low, expected.high))
        assert frame.loc[name, "tail"] == pytest.approx(expected.value)
    everyone = np.stack([rows[name].right * image_weights(rows[name].labels, weights) for name in frame.index])
    own = compared(everyone, list(frame.index).index("ce"), rows["ce"].labels, dunnett, weights)[0]
    shown = frame.loc[frame.index[0], ["delta", "delta_low", "delta_high", "p_baseline"]].astype(float)
    np.testing.assert_allclose(shown, [own.delta, own.low, own.high, own.p_value], rtol=1e-9)
    assert frame.index[0] == "my_best" and not frame.loc["my_best", "open_baseline"]
    assert frame.loc["cb", "open_baseline"] and "?" in column(table, "Δ ce")[1] + column(table, "Δ ce")[2]


def test_the_ablation_is_spanned_by_three_hyper_parameters(tmp_path: Path, add_record: Add) -> None:
    default = {"pretrain": "ssl", "selection": "anchor", "query": "mutual_information"}
    for trial in range(2):
        add_record(tmp_path, "ce", trial, 0.5)
        for changed in ({}, {"query": "none"}, {"selection": "edge"}, {"pretrain": "ce", "query": "none"}):
            add_record(tmp_path, "flex", trial, 0.7, changed=changed, hyperparameters=default | changed)
        other = {"anchor_scale": 0.5}
        add_record(tmp_path, "flex", trial, 0.7, changed=other, hyperparameters=default | other)
    second, first = sorted(tables(tmp_path, "ablation"), key=lambda table: len(table.cells))  # rows of one accuracy
    assert list(first.headers) == ["pre-train", "sample selection", "query: none", "query: mutual information"]
    shown = [[cell.text.split(" ")[0] for cell in row] for row in first.cells]
    assert [row[:2] for row in shown] == [["ce", "anchor"], ["ssl", "anchor"], ["ssl", "edge"]]
    assert [[text == "n/a" for text in row[2:]] for row in shown] == [[False, True], [False, False], [True, False]]
    assert second.title.startswith("flex anchor_scale=0.5; ") and len(second.cells) == 1


def test_versions_of_a_method_have_ablations_of_their_own(tmp_path: Path, add_trials: Add) -> None:
    """Two defaults of a hyper-parameter that no row changes: nothing is dropped, and the titles differ."""
    for scale in (0.1, 0.2):
        own = {"pretrain": "ssl", "selection": "anchor", "query": "none", "anchor_scale": scale}
        add_trials(tmp_path, "flex", 2, 0.5 + scale, hyperparameters=own)
    first, second = tables(tmp_path, "ablation")
    assert len(first.frame) == len(second.frame) == 1
    titles = [table.title.partition(";")[0] for table in (first, second)]
    assert sorted(titles) == ["flex anchor_scale=0.1", "flex anchor_scale=0.2"]


def test_two_versions_of_a_plugin_are_two_rows(tmp_path: Path, add_trials: Add) -> None:
    for version in ("a" * 64, "b" * 64):
        add_trials(tmp_path, "mine", 2, 0.7, plugin=version)
    (table,) = tables(tmp_path)
    assert len(table.frame) == 2 and (table.frame["n"] == 2).all()
    assert table.frame["method"].str.fullmatch(r"mine \[[0-9a-f]{8}\]").all()
    for kind in ("overview", "ratios", "ranks", "cost"):
        assert all(any("versions of mine: " in note for note in own.notes) for own in tables(tmp_path, kind))
    assert "No interval or test" not in " ".join(table.notes)  # there is no Δ
    add_trials(tmp_path, "mine", 2, 0.7, plugin="a" * 64, ratio=50.0, split_digest="7" * 64)
    (table,) = tables(tmp_path, "ratios")
    assert len(table.cells) == 2  # one version has both ratios, under one name
    assert sorted([cell.text == "n/a" for cell in row].count(True) for row in table.cells) == [2, 3]  # Δ ce is one


def test_rows_that_lack_a_ratio_come_last_and_trials_alone_are_no_other_images(tmp_path: Path, add_record: Add) -> None:
    for trial in range(3):
        add_record(tmp_path, "ce", trial, 0.5, ratio=100.0)
        add_record(tmp_path, "mixup", trial, 0.9, ratio=100.0)
        if trial < 2:
            add_record(tmp_path, "ce", trial, 0.4, ratio=500.0, split_digest="7" * 64)
            add_record(tmp_path, "rs", trial, 0.4, ratio=500.0, split_digest="7" * 64)
    first, second = tables(tmp_path, "ratios")
    notes = [note for table in (first, second) for note in table.notes if "mixed" in note]
    assert notes == ["Trials 0, 1: rows of other trials are not mixed in."]
    add_record(tmp_path, "ce", 2, 0.4, ratio=500.0, split_digest="7" * 64)
    together, _ = tables(tmp_path, "ratios")
    assert [row[0].text for row in together.cells] == ["ce", "mixup"]


def test_what_is_missing_is_told_below_the_ratios_too(tmp_path: Path, add_record: Add) -> None:
    for kind in ("overview", "ratios"):
        add_record(tmp_path, "ce", 0, 0.5, notes=["missing images: 3 of 9"])
        (table,) = tables(tmp_path, kind)
        assert "missing images: 3 of 9" in " ".join([table.title, *table.notes])


def test_undefined_is_not_a_number_and_has_its_reason(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "ce", 2, 0.7, test_counts=(20, 20, 20, 0))
    for kind, header in (("overview", "tail"), ("per-class", "d (10)"), ("metrics", "macro AUROC")):
        (table,) = tables(tmp_path, kind)
        assert column(table, header) == ["n/a"]
        assert any(note.startswith("n/a, no image of class d: ") for note in table.notes)
    (table,) = tables(tmp_path)
    assert table.frame[["macro_auroc", "tail"]].isna().all(axis=None)


def test_special_classes_have_their_columns(tmp_path: Path, add_record: Add) -> None:
    add_record(tmp_path, "ce", 0, 0.7, class_names=["NV", "MEL", "BCC", "DF"], special_classes=["MEL"])
    (table,) = tables(tmp_path, "metrics")
    assert table.frame["sensitivity_at_90/MEL"].between(0, 1).all()
    assert column(table, "MEL sensitivity at 95 % specificity") != ["n/a"]


def test_micro_top1_is_shown_where_the_test_set_is_not_balanced(results: Path, tmp_path: Path, add_record: Add) -> None:
    (balanced,) = tables(results)
    assert "micro top-1" not in balanced.headers and "micro top-1 equals" in " ".join(balanced.notes)
    add_record(tmp_path / "other", "ce", 0, 0.7, test_counts=(40, 10, 10, 20))
    add_record(tmp_path / "empty", "ce", 0, 0.7, test_counts=(20, 20, 20, 0))
    for folder in ("other", "empty"):
        (table,) = tables(tmp_path / folder)
        assert "micro top-1" in table.headers and "Balanced" not in " ".join(table.notes)


def test_a_leaderboard_as_csv_has_all_costs(tmp_path: Path, add_record: Add) -> None:
    stage = {"cached": False, "seconds": 1.0, "epochs": 1, "images": 10, "forward_images": 350}
    stages = [{**stage, "name": name, "steps": steps} for name, steps in (("first", 30), ("second", 12))]
    for trial in range(2):
        add_record(tmp_path, "ce", trial, 0.5, cost={"stages": stages, "forward_images": 700, "parameters": 9})
    (overview,), (cost,) = tables(tmp_path), tables(tmp_path, "cost")
    (line,) = overview.frame.to_dict("records")
    assert (line["optimizer_steps"], line["forward_images"], line["parameters"]) == (42, 700, 9)
    assert list(overview.frame[list(COSTS)].iloc[0].dropna()) == list(cost.frame[list(COSTS)].iloc[0].dropna())
