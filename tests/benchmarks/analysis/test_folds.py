"""Folds of a cross-validation as one trial: numbers of the pooled predictions, and intervals that hold the truth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import predictions_of, row_of, rows_of

from ltbench.benchmarks.analysis.advice.facts import advice_of
from ltbench.benchmarks.analysis.advice.text import lines_of
from ltbench.benchmarks.analysis.metrics import evaluate, wilson_interval
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.standings import compare, settings_of
from ltbench.benchmarks.analysis.statistics.intervals import (
    class_interval,
    fold_inflation,
    image_weights,
    interval,
    paired_differences,
)
from ltbench.benchmarks.analysis.tables import tables_of
from ltbench.benchmarks.training.protocol import PRESETS
from ltbench.datasets.splits.folds import fold_numbers
from ltbench.errors import UserError

Add = Callable[..., Any]
FOLDS = replace(PRESETS["quick"], folds=3)
SIZES = ((12, 9, 4, 1), (12, 9, 4, 1), (12, 9, 4, 0))


def add_folds(add_record: Add, results: Path, method: str, accuracy: float, folds: Sequence[int] = (0, 1, 2)) -> None:
    for fold in folds:
        own = {"test_counts": SIZES[fold], "first_id": 100 * fold, "varied_from": "9" * 64, "protocol": FOLDS}
        add_record(results, method, fold, accuracy, split_digest=str(fold) * 64, **own)


def pooled(method: str, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    drawn = [predictions_of(4, SIZES[fold], accuracy, [fold, *method.encode()]) for fold in range(3)]
    labels, logits = (np.concatenate(own) for own in zip(*drawn, strict=True))
    return labels, logits


def test_a_row_has_the_numbers_of_its_pooled_predictions(tmp_path: Path, add_record: Add) -> None:
    add_folds(add_record, tmp_path, "ce", 0.6)
    row, (labels, logits) = row_of(tmp_path), pooled("ce", 0.6)
    expected = evaluate(labels, logits, row.result.data.groups, row.result.data.class_names, ())
    for name in ("mean_class_accuracy", "top1", "macro_f1", "macro_auroc", "tail"):
        assert row.values(name) == pytest.approx([expected[name]])
    assert row.accuracy.value == pytest.approx(expected["mean_class_accuracy"])
    assert row.test_counts.tolist() == [[36, 27, 12, 2]] and len(set(row.test_ids)) == 77
    right = logits.argmax(axis=1) == labels
    naive = interval(image_weights(labels) * right[None], labels)
    assert row.accuracy.standard_error == pytest.approx(naive.standard_error * np.sqrt(5 / 2))
    half = right[labels == 0].mean()
    low, high = wilson_interval(half * 36 / 2.5, 36 / 2.5)
    assert (row.class_estimate(0).low, row.class_estimate(0).high) == pytest.approx((low, high))


def test_methods_are_compared_in_pairs_over_all_images(tmp_path: Path, add_record: Add) -> None:
    add_folds(add_record, tmp_path, "rs", 0.9)
    add_folds(add_record, tmp_path, "ce", 0.5)
    rows = rows_of(tmp_path)
    (found, _) = compare(rows, rows[1])
    (labels, first), (_, second) = pooled("rs", 0.9), pooled("ce", 0.5)
    scores = np.stack([image_weights(labels) * (own.argmax(axis=1) == labels) for own in (first, second)])[:, None]
    expected = paired_differences(scores, 1, labels, inflation=fold_inflation(3))[0]
    assert (found.delta, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_tables_and_advice_say_that_folds_are_pooled(tmp_path: Path, add_record: Add) -> None:
    add_folds(add_record, tmp_path, "rs", 0.9)
    add_folds(add_record, tmp_path, "ce", 0.5)
    add_folds(add_record, tmp_path, "cb", 0.5, (0, 2))
    settings = settings_of(find_records(tmp_path))
    whole, part = tables_of("overview", settings)
    assert "3 folds, pooled" in whole.title and "3 folds, pooled: 77 images" in " ".join(whole.notes)
    assert "±" not in "".join(cell.text for cell in whole.cells[0]) and "One trial" not in " ".join(whole.notes)
    assert "2 of 3 folds, the others are missing, pooled: 51 images" in " ".join(part.notes)
    for kind in ("per-class", "groups", "metrics", "cost", "reliability", "conformal", "ratios"):
        assert "3 folds, pooled" in tables_of(kind, settings)[0].title
    (advice,) = advice_of(settings, "ce")
    assert "3 of 3 folds, pooled, 77 test images" in lines_of(advice)[1]
    assert not any(own.varies for own in advice.classes) and advice.left_out == ("cb",)


def test_reliability_is_of_each_fold_by_itself(tmp_path: Path, add_record: Add) -> None:
    add_folds(add_record, tmp_path, "ce", 0.6)
    (table,) = tables_of("reliability", settings_of(find_records(tmp_path)))
    errors = [record.result.test["ece"] for record in row_of(tmp_path).records]
    line = table.frame.iloc[0]
    assert [line["ece"], line["ece_sd"]] == pytest.approx([np.mean(errors), np.std(errors, ddof=1)])
    assert abs(line["ece"] - row_of(tmp_path).values("ece")[0]) > 0.005
    assert "mean ± sd over n folds, each by itself" in table.notes[0]


def test_tables_of_folds_do_not_speak_of_trials(tmp_path: Path, add_record: Add) -> None:
    add_folds(add_record, tmp_path, "ce", 0.6)
    settings = settings_of(find_records(tmp_path))
    (ratios,), (classes,), (cost,) = (tables_of(kind, settings) for kind in ("ratios", "per-class", "cost"))
    assert "Mean per-class accuracy, 3 folds, pooled. Percent, of the predictions of all" in " ".join(ratios.notes)
    assert cost.notes[0].startswith("Mean ± sd over n folds, each by itself")
    for line in classes.frame.to_dict("records"):
        assert (line["wilson_low"], line["wilson_high"]) == pytest.approx((line["accuracy_low"], line["accuracy_high"]))


def test_an_image_in_two_folds_is_refused(tmp_path: Path, add_record: Add) -> None:
    for fold in range(2):
        add_record(tmp_path, "ce", fold, 0.5, protocol=FOLDS, varied_from="9" * 64)
    with pytest.raises(UserError, match="image i0 is in two folds"):
        tables_of("overview", settings_of(find_records(tmp_path)))


def test_inflation_widens_intervals_as_fewer_images_would() -> None:
    assert fold_inflation(5) == 2.25 and fold_inflation(2) == 3
    right = np.arange(40) < 30
    assert class_interval(right[None], inflation=4.0).high == pytest.approx(wilson_interval(7.5, 10)[1])
    every = interval(np.full((1, 40), 1 / 40), np.zeros(40, dtype=np.int64), inflation=4.0)
    assert every.low == pytest.approx(wilson_interval(10, 10)[0])


def trained(images: np.ndarray, labels: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the decisions of a ridge regression on class indicators, classes weighted alike."""
    weights = 1 / np.bincount(labels, minlength=classes)[labels]
    centre = np.average(images, axis=0, weights=weights)
    weighted = (images - centre) * weights[:, None]
    gram = weighted.T @ (images - centre) + 0.05 * np.eye(images.shape[1])
    slopes = np.linalg.solve(gram, weighted.T @ np.eye(classes)[labels])
    return lambda others: ((others - centre) @ slopes).argmax(axis=1)


def simulate(
    counts: Sequence[int], size: int, distance: float, folds: int, replicates: int, seed: int = 0
) -> list[float]:
    """Return how often intervals hold the truth, and how often two equally good methods are told apart.

    The truth is the mean accuracy of networks that are trained on so many images of new data. The two methods see other
    halves of the features, which say equally much.

    Returns
    -------
    coverage by the images alone, coverage by the corrected interval, wrong rejections by the images alone, corrected
    """
    rng, classes, factor = np.random.default_rng(0), len(counts), fold_inflation(folds)
    half = rng.standard_normal((classes, size)) * distance / np.sqrt(size)
    means, labels = np.tile(half, 2), np.repeat(np.arange(classes), counts)
    ids, new = np.arange(len(labels)).astype(str), np.repeat(np.arange(classes), 100)
    truths, estimates, differences = [], [], []
    for _ in range(replicates):
        images, others = (means[own] + rng.standard_normal((len(own), 2 * size)) for own in (labels, new))
        fold_of = fold_numbers(labels, ids, folds, rng, [str(label) for label in range(classes)])
        right = np.zeros((2, len(labels)), dtype=bool)
        for fold in range(folds):
            tested = fold_of == fold
            for method, seen in enumerate((slice(0, size), slice(size, None))):
                decide = trained(images[~tested][:, seen], labels[~tested], classes)
                right[method, tested] = decide(images[tested][:, seen]) == labels[tested]
                truths.append((decide(others[:, seen]) == new).mean())
        scores = (image_weights(labels) * right)[:, None]
        estimates.append([interval(scores[0], labels, inflation=own) for own in (1.0, factor)])
        differences.append([paired_differences(scores, 1, labels, inflation=own)[0] for own in (1.0, factor)])
    truth = float(np.mean(truths))
    held = np.array([[own.low <= truth <= own.high for own in both] for both in estimates])
    wrong = np.array([[not own.low <= 0 <= own.high for own in both] for both in differences])
    return [float(each) for each in (*held.mean(axis=0), *wrong.mean(axis=0))]


@pytest.mark.parametrize(
    ("counts", "size", "distance", "folds"),
    [((75, 75, 75, 75), 60, 4.0, 5), ((150, 70, 35, 20, 12, 8, 5), 20, 4.0, 5)],
)
def test_pooled_intervals_of_300_images_hold_the_truth(
    counts: Sequence[int], size: int, distance: float, folds: int
) -> None:
    by_images, corrected, _, wrong = simulate(counts, size, distance, folds, 150)
    assert corrected > 0.95 - 2 * np.sqrt(0.95 * 0.05 / 150) and corrected >= by_images
    assert wrong < 0.05 + 2 * np.sqrt(0.95 * 0.05 / 150)
