"""What stands above and below tables: titles, what the numbers and signs mean, and where they mean less."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltbench.benchmarks.analysis.metrics import metric_labels
from ltbench.benchmarks.analysis.records import Result
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import BASELINE, SIGNIFICANT, Panel, common_trials

SPREAD = "mean ± sd over n trials (ddof = 1)"
INTERVALS = "intervals: 95 % over trials and test images, each by itself"
TESTED = (
    f"Percent, {SPREAD}; {INTERVALS}. Bold: best; ≈: the difference to the best (behind Δ: to {BASELINE}) can be "
    f"chance, paired test, p ≥ {SIGNIFICANT} after Holm's adjustment for all rows of the ratio; so an interval of Δ "
    "may leave out 0 where ≈ stands."
)


def title_of(result: Result, *, ratio: bool = True) -> str:
    """Return the title of a table: data, split, protocol and, unless its columns are ratios, the ratio."""
    protocol, split = result.protocol, f"split {result.data.split}"
    data = f"{result.data.title}, {split}"
    if ratio:
        natural = "natural " if result.data.natural else ""
        data = f"{result.data.title}, {natural}ratio {result.data.ratio:g}, {split} ({result.split_digest[:8]})"
    network = f"{protocol['backbone']} {protocol['image_size']} px, at most {protocol['epochs']} epochs"
    notes = "".join(f"; {note}" for note in result.data.notes) if ratio else ""
    return f"{data}; protocol {result.protocol_digest[:8]}: {network}{notes}"


def baseline_notes(panel: Panel) -> list[str]:
    """Return a line where Δ is not simply the difference of two rows: why it is n/a, or over which trials."""
    baseline, setting = panel.setting.baseline, panel.setting
    if baseline is None:
        several = any(row.result.method == BASELINE for row in setting.rows)
        reason = f"there are several versions of {BASELINE}" if several else f"no trial of {BASELINE} is finished"
        return [f"Δ n/a, {reason}."]
    common = common_trials(panel.rows[0], baseline)
    if not common:
        return [f"Δ n/a, no trial in common with {BASELINE}."]
    if baseline.trials == panel.trials:
        return []
    return [f"Δ is over the trials that {BASELINE} has too: {', '.join(map(str, common))}."]


def caveats(rows: Sequence[Row], shown: Iterable[str]) -> list[str]:
    """Return lines on what the numbers do not say: intervals of one trial, why a metric is undefined."""
    lines = []
    if len(rows[0].trials) == 1:
        lines.append(
            "One trial: intervals and ≈ are over test images alone and compare these networks, not the methods."
        )
    reasons = {name: reason for row in rows for own in row.measured for name, reason in own["undefined"].items()}
    labels = metric_labels(rows[0].result.data.special_classes)
    undefined: dict[str, list[str]] = {}
    for name in shown:
        if name in reasons:
            undefined.setdefault(reasons[name], []).append(labels.get(name, name.replace("_", " ")))
    lines += [f"n/a, {reason}: {', '.join(names)}." for reason, names in undefined.items()]
    return lines
