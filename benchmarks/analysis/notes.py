"""What stands above and below tables: titles, what the numbers and signs mean, and where they mean less."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ltbench.benchmarks.analysis.metrics import metric_labels
from ltbench.benchmarks.analysis.record_files.later_fields import LATER_FIELDS
from ltbench.benchmarks.analysis.record_files.stored_logits import KEPT, is_cut
from ltbench.benchmarks.analysis.record_files.values import current_fields
from ltbench.benchmarks.analysis.records import Result, StartingWeights
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import BASELINE, Panel, common_trials
from ltbench.benchmarks.analysis.statistics.comparisons import (
    LEVEL,
    POWER,
    Comparison,
    best_of_chance,
    detectable,
    dunnett,
    tukey,
)
from ltbench.errors import at_most, counted

SPREAD = "mean ± sd over n trials (ddof = 1)"
INTERVALS = "intervals: 95 % over trials and test images, each by itself"
_CUT = (
    f"Macro AUROC and AUPRC come from the {KEPT:,} largest logits of each image, which alone are stored: too low, by "
    "points where methods are weak."
)

_POOLED = (
    "intervals and tests allow for the training images that the networks of the folds share, by a correction that is "
    "mostly wide"
)

_USUAL = {"weights": "none", **LATER_FIELDS}
_NAMED = ("weights", "tune", "tune_rank", "frozen_features", "budget", "init", "tta")  # in titles, where not usual


def title_of(result: Result, *, ratio: bool = True) -> str:
    """Return the title of a table: data, split, protocol and, unless its columns are ratios, the ratio."""
    protocol, split = current_fields(result.protocol), f"split {result.data.split}"
    drawn = (
        f"{split} ({result.split_digest[:8]})" if result.data.varied_from is None else f"{split}, each trial its own"
    )
    if result.folds:
        drawn = split = f"{split}, {result.folds} folds, pooled"
    data = f"{result.data.title}, {split}"
    if ratio:
        natural = "natural " if result.data.natural else ""
        data = f"{result.data.title}, {natural}ratio {result.data.ratio:g}, {drawn}"
    network = f"{protocol['backbone']} {protocol['image_size']} px, {at_most(protocol['epochs'], 'epoch')}"
    network += "".join(
        f", {name.replace('_', ' ')} {protocol[name]}"
        for name in _NAMED
        if protocol.get(name, _USUAL[name]) != _USUAL[name]
    )
    notes = "".join(f"; {note}" for note in result.data.notes) if ratio else ""
    return f"{data}; protocol {result.protocol_digest[:8]}: {network}{notes}"


def spread(row: Row) -> str:
    """Return what the numbers of rows like one are."""
    return "of the predictions of all folds together" if row.folds else SPREAD


def spread_alone(row: Row) -> str:
    """Return what the numbers of rows like one are where each fold counts by itself."""
    return "mean ± sd over n folds, each by itself (ddof = 1)" if row.folds else SPREAD


def intervals(row: Row) -> str:
    """Return what intervals of rows like one hold for."""
    return "intervals: 95 %, each by itself" if row.folds else INTERVALS


def signs(row: Row, best: Sequence[Comparison], baseline: Sequence[Comparison]) -> str:
    """Return what numbers and signs of accuracies mean, of ? only where it stands.

    Parameters
    ----------
    row : of the table
    best, baseline : all comparisons of a table with the best of the rows, and with the baseline
    """
    numbers = f"Percent, {spread(row)}; {intervals(row)}. Bold: best."
    of_best, of_baseline = (any(each.open for each in own) for own in (best, baseline))
    meanings, told = [], []
    if of_best:
        chosen = f"p ≥ {LEVEL}, adjusted for all rows and for the best being chosen by looking"
        meanings.append(f"it is open whether it is worse than the best, {chosen}")
        if any(not math.isnan(each.p_value) for each in baseline):
            named = f"{BASELINE} was named beforehand, so a difference to it needs less"
            told.append(f"{named}: {BASELINE} may carry ? although the best is told from it by Δ.")
    if of_baseline:
        meanings.append(f"behind Δ, it is open whether it differs from {BASELINE}, p ≥ {LEVEL}, adjusted for all rows")
        told.append("Intervals of Δ are not adjusted and may leave out 0 where ? stands.")
    return " ".join([numbers, *([f"?: {'; '.join(meanings)}."] if meanings else []), *told])


def tested(rows: Sequence[Row], best: Sequence[Comparison], baseline: Sequence[Comparison]) -> str:
    """Return what the comparisons could have found, or why they were not made; empty where there is nothing to say.

    Parameters
    ----------
    best, baseline : the rows' comparisons with the best of them, and with the baseline; none where Δ is not shown
    """
    lines = []
    found = [
        f"{100 * size:.1f} points to {name}"
        for name, size in (("the best", detectable(best, tukey)), (BASELINE, detectable(baseline, dunnett)))
        if not math.isnan(size)
    ]
    if found:
        lines.append(f"A true difference of {' and of '.join(found)} would be seen in {100 * POWER:.0f} % of cases.")
    errors = [each.standard_error for each in best if each.standard_error > 0]
    if errors:
        excess = best_of_chance(len(rows)) * float(np.median(errors)) / math.sqrt(2)
        lines.append(
            f"Were all {len(rows)} rows equally good, the best would still show {100 * excess:.1f} points more."
        )
    untested = [
        what
        for what, own in (("test against the best", best), ("interval or test of Δ", baseline))
        if any(each.untested for each in own)
    ]
    if untested and len(rows[0].trials) > 1:
        lines.append(f"No {' and no '.join(untested)} for two trials of fewer than four rows.")
    if rows[0].folds:
        lines.append(_of_folds(rows[0]))
    elif rows[0].result.data.varied_from is not None:
        images = int(rows[0].test_counts[0].sum())
        each = counted(images, "test image")
        lines.append(
            f"Each trial draws its own split, the same for all rows ({each} each, {len(rows[0].labels)} in all): "
            "intervals hold for new splits of these data, too."
        )
    if rows[0].lesions is not None:
        lesions = len(np.unique(rows[0].lesions))
        group = rows[0].result.data.group_name
        sizes = f"{counted(len(rows[0].labels), 'test image')}, {counted(lesions, group)}"
        lines.append(f"Images of one {group} are not independent: {sizes}.")
    return " ".join(lines)


def _of_folds(row: Row) -> str:
    """Return how many folds are pooled, and what their intervals are."""
    images = counted(len(row.labels), "image")
    which = f"{row.repeats}, the others are missing" if len(row.trials) < row.folds else row.repeats
    return f"{which}, pooled: {images}, each tested once, by a network that was not trained on it; {_POOLED}."


def baseline_notes(panel: Panel) -> list[str]:
    """Return a line where Δ is not simply the difference of two rows: why it is n/a, or over which trials."""
    baseline, setting = panel.setting.baseline, panel.setting
    if baseline is None:
        several = any(row.result.method == BASELINE for row in setting.rows)
        reason = f"there are several versions of {BASELINE}" if several else f"{BASELINE} is not among the rows shown"
        return [f"Δ n/a, {reason}."]
    common = common_trials(panel.rows[0], baseline)
    if not common:
        return [f"Δ n/a, no trial in common with {BASELINE}."]
    if baseline.trials == panel.trials:
        return []
    lines = [f"Δ is over the trials that {BASELINE} has too: {', '.join(map(str, common))}."]
    if len(common) == 1 < len(panel.trials) and not baseline.folds:
        lines.append("One trial: interval and test of Δ are over test images alone and compare these networks.")
    return lines


def caveats(rows: Sequence[Row], shown: Iterable[str], *, alone: bool = False) -> list[str]:
    """Return lines on what the numbers do not say: intervals of one trial, warnings, why a metric is undefined.

    Parameters
    ----------
    shown : names of the metrics
    alone : whether they are of each fold by itself
    """
    lines = []
    if len(rows[0].trials) == 1 and not rows[0].folds:
        lines.append(
            "One trial: intervals and tests are over test images alone and compare these networks, not the methods."
        )
    if any(is_cut(int(row.test_counts[0].sum()), len(row.result.data.class_names)) for row in rows):
        lines.append(_CUT)
    lines += dict.fromkeys(line for row in rows for line in _starting_weights(row.result.weights))
    lines += [line for row in rows for line in _warnings(row)]
    measured = [own for row in rows for own in (row.measured_alone if alone else row.measured)]
    reasons = {name: reason for own in measured for name, reason in own["undefined"].items()}
    labels = metric_labels(rows[0].result.data.special_classes)
    undefined: dict[str, list[str]] = {}
    for name in shown:
        if name in reasons:
            undefined.setdefault(reasons[name], []).append(labels.get(name, name.replace("_", " ")))
    lines += [f"n/a, {reason}: {', '.join(names)}." for reason, names in undefined.items()]
    return lines


def _starting_weights(weights: StartingWeights | None) -> list[str]:
    """Return a line where the weights that training started from may have seen the test images."""
    if weights is None or not weights.may_have_seen_test:
        return []
    trained = "what they were trained on is not known" if weights.training_data is None else weights.training_data
    return [f"Weights {weights.source} ({trained}) may have seen the test images, and accuracies be too high."]


def _warnings(row: Row) -> list[str]:
    """Return a line on what trials of a row warn of, with the first of the warnings and the number of trials."""
    told = [list(record.result.story.values()) for record in row.records]
    warned = [[each["warning"] for each in own if isinstance(each, Mapping) and "warning" in each] for own in told]
    found = [own[0] for own in warned if own]
    return [f"{row.name}, {len(found)} of {len(told)} trials: {found[0]}."] if found else []
