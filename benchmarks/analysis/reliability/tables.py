"""The tables of what probabilities are worth: calibration, thresholds of special classes, and conformal sets.

Validation images decide, test images are scored, for each trial by itself; nothing is trained again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ltbench.benchmarks.analysis.cells import lines_of, mean_sd, percent, same, statistics
from ltbench.benchmarks.analysis.metrics import METRICS, SPECIFICITIES, sensitivity_name
from ltbench.benchmarks.analysis.notes import caveats, spread_alone, title_of
from ltbench.benchmarks.analysis.reliability.conformal import (
    ALPHA,
    BY_CLASS,
    BY_PREVALENCE,
    RULES,
    Coverage,
    expected_worst,
)
from ltbench.benchmarks.analysis.reliability.trial import Reliability, reliability_of
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import Panel

_PROMISED = f"{100 * (1 - ALPHA):g} %"
_SETS = {
    "set_size": "set size",
    "marginal_coverage": "coverage",
    "macro_coverage": "macro coverage",
    "worst_coverage": "worst-class coverage",
}
"""Numbers of sets, and their headers."""


def reliability(panel: Panel) -> Table:
    """Return calibration before and after temperature scaling, standard conformal sets, points of special classes."""
    rows, special = panel.rows, panel.setting.data.special_classes
    measured = [_trials(row) for row in rows]
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **statistics({"ece": row.values_alone("ece"), **_scaled(trials)}),
            **statistics(_sets(trials)["standard"]),
            **statistics(_points(row, trials)),
        }
        for row, trials in zip(rows, measured, strict=True)
    )
    best, sets = frame[["ece", "scaled_ece"]].min(), _shown_sets(panel)
    points = {
        name: header
        for class_name in special
        for percentage in SPECIFICITIES
        for name, header in _point_names(class_name, percentage).items()
    }
    cells = [
        [
            Cell(own["method"]),
            *(Cell(percent(own, name), same(own[name], best[name])) for name in best.index),
            Cell(mean_sd(own, "temperature", 1, 2)),
            *_set_cells(own, sets),
            *(Cell(percent(own, name)) for name in points),
            Cell(str(own["n"])),
        ]
        for own in lines_of(frame)
    ]
    headers = ["method", METRICS["ece"], "ECE, scaled", "temperature", *sets.values(), *points.values(), "n"]
    about = (
        f"Percent (set size: classes), {spread_alone(rows[0])}; bold: best. Scaled: logits are divided by the "
        f"temperature that has the smallest cross-entropy on validation. {_about_sets(panel)} Sets: "
        f"{RULES['standard']}; other rules: leaderboard --table conformal."
    )
    if special:
        about += " At 90 and 95 %: the threshold has this specificity on validation; what it reaches on test is shown."
    notes = [
        about,
        *_unbalanced(panel, measured),
        *_undefined(panel, measured, ("standard",)),
        *caveats(rows, ("ece", *points), alone=True),
    ]
    return Table(title_of(panel.setting.result), frame, headers, cells, notes)


def conformal(panel: Panel) -> Table:
    """Return size and coverage of conformal sets by each rule, one line a rule and method."""
    measured = [_trials(row) for row in panel.rows]
    numbers = [(row, _sets(trials)) for row, trials in zip(panel.rows, measured, strict=True)]
    frame = pd.DataFrame(
        {"sets": rule, "method": row.name, "n": len(row.trials), **statistics(found[rule])}
        for rule in RULES
        for row, found in numbers
    )
    shown = _shown_sets(panel)
    cells = [
        [Cell(own["sets"]), Cell(own["method"]), *_set_cells(own, shown), Cell(str(own["n"]))]
        for own in lines_of(frame)
    ]
    rules = "; ".join(f"{name}: {what}" for name, what in RULES.items())
    about = (
        f"Percent (size: classes), {spread_alone(panel.rows[0])}. {_about_sets(panel)} {rules[0].upper()}{rules[1:]}."
    )
    notes = [about, *_unbalanced(panel, measured), *_undefined(panel, measured, RULES), *caveats(panel.rows, ())]
    return Table(title_of(panel.setting.result), frame, ["sets", "method", *shown.values(), "n"], cells, notes)


def _trials(row: Row) -> list[Reliability]:
    return [reliability_of(record) for record in row.records]


def _scaled(trials: Sequence[Reliability]) -> dict[str, np.ndarray]:
    """Return temperature and calibration error after scaling of each trial, float64 [T] each."""
    return {name: np.array([getattr(own, name) for own in trials]) for name in ("scaled_ece", "temperature")}


def _sets(trials: Sequence[Reliability]) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers of the conformal sets of each trial by each rule, float64 [T] each."""
    return {
        rule: {name: np.array([getattr(own.sets[rule], name) for own in trials]) for name in Coverage._fields}
        for rule in RULES
    }


def _points(row: Row, trials: Sequence[Reliability]) -> dict[str, np.ndarray]:
    """Return specificity and sensitivity of thresholds from validation, and the sensitivity of those from test, [T]."""
    found = {}
    for class_name in row.result.data.special_classes:
        for percentage in SPECIFICITIES:
            specificity, sensitivity, from_test = _point_names(class_name, percentage)
            points = [own.points[class_name][percentage] for own in trials]
            found[specificity] = np.array([point.specificity for point in points])
            found[sensitivity] = np.array([point.sensitivity for point in points])
            found[from_test] = row.values_alone(from_test)
    return found


def _point_names(class_name: str, percentage: int) -> dict[str, str]:
    """Return names and headers of what is shown of a special class at a specificity in percent."""
    from_test = sensitivity_name(class_name, percentage)
    at = f"{class_name} at {percentage} %"
    return {
        f"reached_specificity_at_{percentage}/{class_name}": f"{at}: specificity",
        f"reached_{from_test}": f"{at}: sensitivity",
        from_test: f"{at}: sensitivity, threshold from test",
    }


def _shown_sets(panel: Panel) -> dict[str, str]:
    """Return names and headers of the numbers of sets; of a balanced test set coverage and macro coverage are one."""
    balanced = len(set(panel.rows[0].test_counts[0])) == 1
    return {name: header for name, header in _SETS.items() if not (balanced and name == "marginal_coverage")}


def _set_cells(numbers: Mapping[str, Any], shown: Mapping[str, str]) -> list[Cell]:
    return [Cell(mean_sd(numbers, name, 1, 2) if name == "set_size" else percent(numbers, name)) for name in shown]


def _about_sets(panel: Panel) -> str:
    """Return what sets are, and what the worst class of a trial would be if the promise held in every class."""
    about = (
        f"Set: the classes that are not ruled out; by a threshold from validation, {_PROMISED} of sets should hold the "
        "true class (coverage), a little less as the reported epoch was chosen on the same images."
    )
    if panel.rows[0].folds:
        return about
    worst = expected_worst(panel.rows[0].test_counts[0].tolist())
    shown = f"the worst class would show {100 * worst:.1f} % on average"
    return f"{about} Were each image covered with {_PROMISED} probability, {shown}."


def _unbalanced(panel: Panel, measured: Sequence[Sequence[Reliability]]) -> list[str]:
    """Return a line where validation images are not class-balanced, which one threshold for all classes supposes."""
    counts = measured[0][0].validation_counts
    if len(set(counts)) == 1:
        return []
    listed = ", ".join(f"{name} {count}" for name, count in zip(panel.setting.data.class_names, counts, strict=True))
    return [f"Validation is not class-balanced, and what it decides leans to its frequent classes: {listed}."]


def _undefined(panel: Panel, measured: Sequence[Sequence[Reliability]], rules: Collection[str]) -> list[str]:
    """Return lines on why there are no sets of some of the rules."""
    needed = round(1 / ALPHA - 1)
    counts = np.array([own.validation_counts for trials in measured for own in trials])
    found = {
        f"fewer than {needed} validation images": tuple(RULES) if counts.sum(axis=1).min() < needed else (),
        f"a class has fewer than {needed} validation images": BY_CLASS if counts.min() < needed else (),
        "a class has no training image": BY_PREVALENCE if not min(panel.setting.data.class_counts) else (),
    }
    left = {reason: [rule for rule in without if rule in rules] for reason, without in found.items()}
    return [f"n/a, {reason}: sets {', '.join(without)}." for reason, without in left.items() if without]
