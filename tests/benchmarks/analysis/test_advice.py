"""Advice from records written by hand: what is told apart, what it costs, what the data cannot decide."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written import rows_of

from ltbench.benchmarks.analysis.advice.facts import Advice, advice_of
from ltbench.benchmarks.analysis.advice.text import _p, lines_of
from ltbench.benchmarks.analysis.metrics import wilson_interval
from ltbench.benchmarks.analysis.notes import signs
from ltbench.benchmarks.analysis.records import find_records
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.analysis.statistics.comparisons import REFERENCE, Comparison, detectable_by, tukey
from ltbench.benchmarks.analysis.statistics.planning import growth, images_for_recall
from ltbench.benchmarks.analysis.tables import tables_of

Add = Callable[..., Any]
COUNTS = (20, 20, 20, 20)


def advised(results: Path, baseline: str = "ce") -> Advice:
    (advice,) = advice_of(settings_of(find_records(results)), baseline)
    return advice


def text_of(results: Path, baseline: str = "ce") -> str:
    return "\n".join(lines_of(advised(results, baseline)))


def logits(wrong: dict[int, dict[int, int]], shift: int = 0) -> np.ndarray:
    """Return logits of 20 images a class that are right, but for so many of a class that are taken for another.

    Parameters
    ----------
    shift : which images of a class are wrong: those after so many
    """
    predicted = np.repeat(np.arange(4), 20)
    for label, others in wrong.items():
        first = 20 * label + shift
        for other, count in others.items():
            predicted[first : first + count] = other
            first += count
    return (5 * np.eye(4)[predicted]).astype(np.float32)


def cost(networks: int = 1, steps: int = 100) -> dict[str, Any]:
    stage = {"name": "train", "cached": False, "epochs": 1, "images": 1, "forward_images": 1, "seconds": 1.0}
    return {
        "cpu_seconds": 1e6,
        "parameters": 77 * networks,
        "forward_images": 6000 * networks,
        "stages": [{**stage, "steps": steps * networks}],
    }


def test_the_best_told_from_the_baseline_but_not_the_baseline_from_the_best_is_explained(
    tmp_path: Path, add_trials: Add
) -> None:
    for method, accuracy in (("rs", 0.9), ("ce", 0.5), ("cb", 0.4), ("rw", 0.4)):
        add_trials(tmp_path, method, 3, accuracy)
    advice = advised(tmp_path)
    explained = "ce was named beforehand, so a difference to it needs less than one to the best: rs is told from it"
    assert explained not in " ".join(lines_of(advice))
    first, *others = advice.methods
    near = [replace(own, best=replace(own.best, p_value=0.1)) if own.name == "ce" else own for own in others]
    (line,) = [line for line in lines_of(replace(advice, methods=(first, *near))) if explained in line]
    assert "Better than ce: rs" in line
    rows = rows_of(tmp_path)
    open_best, told = Comparison(-0.1, -0.2, 0.0, 0.1), Comparison(0.1, 0.01, 0.2, 0.049)
    both = signs(rows[0], [REFERENCE, open_best], [told, REFERENCE])
    assert both.endswith(
        "?: it is open whether it is worse than the best, p ≥ 0.05, adjusted for all rows and for the best being "
        "chosen by looking. ce was named beforehand, so a difference to it needs less: ce may carry ? although the "
        "best is told from it by Δ."
    )
    other = signs(rows[0], [REFERENCE, told], [open_best, REFERENCE])
    assert "chosen by looking" not in other and "behind Δ, it is open whether it differs from ce, p ≥ 0.05" in other


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        *((0.0004, "=", "p < 0.001"), (0.0314, "=", "p = 0.031"), (0.0497, "=", "p = 0.0497")),
        *((0.049996, "=", "p = 0.049996"), (0.0502, "=", "p = 0.050"), (0.05, "=", "p = 0.050")),
        *((0.0314, "≤", "p ≤ 0.032"), (0.031, "≤", "p ≤ 0.031"), (0.0494, "≤", "p ≤ 0.0494")),
        *((0.1026, "≥", "p ≥ 0.102"), (0.0509, "≥", "p ≥ 0.050")),
    ],
)
def test_p_values_are_rounded_to_their_own_side(value: float, sign: str, text: str) -> None:
    assert _p(value, sign) == text


def test_what_would_show_a_difference_follows_from_its_variance() -> None:
    error, freedom, rows = 0.02, 12.0, 4
    half = detectable_by(error, freedom, rows, tukey) / 2

    def needed(trial: float, luck: float, trials: int = 5) -> tuple[float, float]:
        comparison = Comparison(-half, 0, 0, 0.5, error, freedom, False, trial * error**2, luck * error**2)
        found = growth(comparison, rows, tukey, trials)
        return found.images, found.trials

    assert needed(1, 1) == pytest.approx((4, 4))  # luck alone, of which there is less in more of either
    assert needed(1, 0) == pytest.approx((math.inf, 4))  # trials that differ whatever the images
    assert needed(0, 0) == pytest.approx((4, math.inf))  # images that differ whatever the trials
    assert needed(0.8, 0.6) == pytest.approx((0.8 / 0.05, 0.8 / 0.05))
    assert needed(0, 0, trials=1) == pytest.approx((4, math.nan), nan_ok=True)
    assert math.isnan(growth(Comparison(0, 0, 0, 1), rows, tukey, 5).images)


def test_images_of_a_class_give_wilsons_interval() -> None:
    assert images_for_recall(0.5, 7, 0.1) == 93  # z²/(4 h²) - z² = 92.2
    for recall, images in ((0.0, 3), (1.0, 3), (0.8, 40), (1.0, 500)):
        needed, squared = images_for_recall(recall, images, 0.1), 1.959964**2
        centre = (recall * images + squared / 2) / (images + squared)
        widths = [np.ptp(wilson_interval(centre * count, count)) / 2 for count in (needed - 1, needed)]
        assert widths[1] <= 0.1 < widths[0]


def test_p_values_are_those_of_the_leaderboard(tmp_path: Path, add_trials: Add) -> None:
    for method, accuracy in (("rs", 0.9), ("ldam", 0.89), ("ce", 0.6), ("cb", 0.5)):
        add_trials(tmp_path, method, 3, accuracy)
    (table,) = tables_of("overview", settings_of(find_records(tmp_path)))
    advice = advised(tmp_path)
    for method, (_, line) in zip(advice.methods, table.frame.iterrows(), strict=True):
        assert method.name == line["method"]
        np.testing.assert_equal(method.best.p_value, line["p_best"])
        np.testing.assert_equal(method.baseline.p_value, line["p_baseline"])
        expected = (line["mean_class_accuracy"], line["low"], line["high"])
        assert (method.accuracy, method.low, method.high) == pytest.approx(expected, rel=1e-12)
    lines = lines_of(advice)
    assert len(lines) <= 10
    assert all("adjusted for all methods" in line for line in lines if re.search(r"\bp [<=≤≥]", line))
    assert "true difference" in table.notes[0]
    stated = re.search(r"difference of ([\d.]+) points to the best", table.notes[0])
    assert stated and f"{stated[1]} points to the best" in "\n".join(lines)


def test_classes_of_few_images_and_the_worst_one(tmp_path: Path, add_record: Add) -> None:
    add_record(tmp_path, "rs", 0, 0, logits=logits({3: {0: 7, 1: 3}}))
    add_record(tmp_path, "ce", 0, 0, logits=logits({1: {0: 10}, 3: {0: 14}}))
    advice = advised(tmp_path)
    (half,) = advice.classes
    low, high = wilson_interval(10, 20)
    assert (half.name, half.test_images, half.recall, half.needed_images, half.varies) == ("d", 20, 0.5, 93, False)
    assert half.half_width == pytest.approx((high - low) / 2)
    assert (advice.worst.name, advice.worst.recall) == ("d", 0.5)
    assert (advice.worst.taken_for, advice.worst.share) == ("a", 0.35)
    assert math.isnan(advice.two_best.trials) and advice.two_best.difference == pytest.approx(0.175)
    text = text_of(tmp_path)
    assert "d ±20.1 (20, 93 would do)" in text and "d, 50.0 % right, most often taken for a (35.0 %" in text
    assert "compares these networks" in text or "are told apart" in text


def test_trials_that_differ_are_not_taken_for_too_few_images(tmp_path: Path, add_record: Add) -> None:
    for trial, wrong in enumerate((0, 20, 10)):
        add_record(tmp_path, "rs", trial, 0, logits=logits({2: {0: wrong}}))
        add_record(tmp_path, "ce", trial, 0, logits=logits({1: {0: 20}, 2: {0: wrong}}))
    advice = advised(tmp_path)
    assert [(own.name, own.varies) for own in advice.classes] == [("c", True)]
    assert all(own.varies or own.needed_images > own.test_images for own in advice.classes)
    assert "Too few trials, which differ, to know the recall of rs to ±10 points: c ±50.0." in text_of(tmp_path)


def test_a_method_without_rivals_is_recommended(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "rs", 3, 0.97)
    add_trials(tmp_path, "cb", 3, 0.4)
    add_trials(tmp_path, "ce", 3, 0.3)
    advice = advised(tmp_path)
    assert (advice.recommended.method, advice.recommended.open) == ("rs", False)
    assert "Recommended: rs. Every other method is told apart from it, and worse." in text_of(tmp_path)


def test_an_ensemble_that_may_be_no_better_is_not_recommended(tmp_path: Path, add_record: Add) -> None:
    for trial in range(3):
        add_record(tmp_path, "ncl", trial, 0, logits=logits({0: {1: 2}}, trial), cost=cost(3))
        add_record(tmp_path, "rs", trial, 0, logits=logits({0: {1: 3}}, trial), cost=cost())
        add_record(tmp_path, "ce", trial, 0, logits=logits({0: {1: 15}, 1: {0: 16}}, trial), cost=cost(steps=50))
    advice = advised(tmp_path)
    assert [method.name for method in advice.methods] == ["ncl", "rs", "ce"]
    assert (advice.methods[0].parameters, advice.methods[0].optimizer_steps) == (3.0, 6.0)
    assert (advice.recommended.method, advice.recommended.open) == ("rs", True)
    text = text_of(tmp_path)
    assert "It is open whether ncl is better, which takes 3.0 times its forward passes." in text
    assert advice.methods[0].baseline.delta == pytest.approx(0.975 - (5 / 20 + 4 / 20 + 2) / 4)
    assert re.search(r"ncl \(networks: .+\) \+36\.\d for 1\.0 x training time, 6\.0 x steps, 3\.0 x parameters;", text)


def test_times_beside_other_work_are_no_cost(tmp_path: Path, add_record: Add) -> None:
    for trial in range(3):
        add_record(tmp_path, "rs", trial, 0, logits=logits({0: {1: 3}}, trial), cost={**cost(), "cpu_seconds": 1e-3})
        add_record(tmp_path, "ce", trial, 0, logits=logits({0: {1: 15}, 1: {0: 16}}, trial), cost=cost(steps=50))
    text = text_of(tmp_path)
    assert "for 2.0 x steps, 1.0 x parameters" in text and "training time" not in text


def test_nothing_is_recommended_for_being_cheap_that_was_not_tested(tmp_path: Path, add_record: Add) -> None:
    for trial in range(2):
        add_record(tmp_path, "oltr", trial, 0, logits=logits({0: {1: 3}}, trial), cost=cost(3))
        add_record(tmp_path, "mixup", trial, 0, logits=logits({0: {1: 15}, 1: {0: 16}}, trial), cost=cost())
    advice = advised(tmp_path)
    assert (advice.recommended.method, advice.recommended.open) == ("oltr", True)
    assert "nothing is tested against it" in text_of(tmp_path)


def test_the_baseline_is_recommended_where_nothing_is_tested(tmp_path: Path, add_record: Add) -> None:
    for trial in range(2):
        add_record(tmp_path, "ncl", trial, 0, logits=logits({0: {1: 3}}, trial), cost=cost(3))
        add_record(tmp_path, "ce", trial, 0, logits=logits({0: {1: 4}}, trial), cost=cost())
    assert advised(tmp_path).recommended.method == "ce"


def test_no_gain_that_is_shown_means_the_baseline(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "rs", 3, 0.62)
    add_trials(tmp_path, "ce", 3, 0.6)
    text = text_of(tmp_path)
    assert "Recommended: ce. It is open whether any method is better than it." in text
    assert re.search(r"no number of test images alone, or about \d+ trials instead of 3 would show it in 80 %", text)
    assert "Open whether better or worse than rs: ce" in text_of(tmp_path, "rs")


def test_two_trials_of_few_methods_are_not_tested(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "rs", 2, 0.9)
    add_trials(tmp_path, "ce", 2, 0.3)
    advice = advised(tmp_path)
    assert not advice.is_tested and advice.recommended.open
    text = text_of(tmp_path)
    assert "Nothing is tested against rs" in text and "--trials 3 or more" in text and "p =" not in text


def test_methods_without_a_baseline_or_of_other_trials(tmp_path: Path, add_trials: Add) -> None:
    add_trials(tmp_path, "rs", 3, 0.9)
    add_trials(tmp_path, "cb", 3, 0.5)
    add_trials(tmp_path, "ldam", 2, 0.5)
    text = text_of(tmp_path)
    assert "What the methods gain on ce is unknown" in text and "Left out, of other trials: ldam." in text
    assert advice_of(settings_of(find_records(tmp_path, "*/ldam*/trial*/result.json")), "ce") == []
