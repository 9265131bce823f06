"""The tables of a results folder: overview, the paper's Tables 1 to 3 and Figure 3, cost, all metrics.

Numbers are mean ± standard deviation over the trials (ddof = 1), in percent except for costs and cross-entropy.
Rows of different trials and settings of different data, splits or protocols are never in one table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ltbench.benchmarks.analysis.families import apart, families
from ltbench.benchmarks.analysis.metrics import HIGHER_IS_BETTER, METRICS, wilson_interval
from ltbench.benchmarks.analysis.records import Result
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.standings import (
    ACCURACY,
    BASELINE,
    GROUP_MEAN,
    SIGNIFICANT,
    Comparison,
    Row,
    Setting,
    common_trials,
    compare,
)

GROUPS = ("head", "medium", "tail", GROUP_MEAN)
COSTS = {
    "train_seconds": "train s",
    "images_seen": "training images seen",
    "forward_images": "forward passes",
    "parameters": "parameters",
    "peak_memory_mib": "peak memory MiB",
}
ABLATION = {"pretrain": "pre-train", "selection": "sample selection"}
ABLATION_COLUMN = "query"
"""Hyper-parameters that span the paper's Table 3: its rows and its columns."""

_ACCURACY = METRICS[ACCURACY]
_SPREAD = "mean ± sd over n trials (ddof = 1)"
_INTERVALS = "intervals: 95 % over trials and test images, each by itself"
_TESTED = (
    f"Percent, {_SPREAD}; {_INTERVALS}. Bold: best; ≈: the difference to the best (behind Δ: to {BASELINE}) can be "
    f"chance, paired test, p ≥ {SIGNIFICANT} after Holm's adjustment for all rows of the ratio; so an interval of Δ "
    "may leave out 0 where ≈ stands."
)
_BALANCED = "Balanced test set: micro top-1 equals mean per-class accuracy."


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


def overview(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return the leaderboard: accuracy with interval, difference to the baseline, groups, cost."""
    shown_metrics = ["top1", *GROUPS, "macro_f1", "macro_auroc"]
    compared = zip(rows, *_comparisons(setting, rows), strict=True)
    frame = pd.DataFrame(
        {
            **{"rank": rank, "method": row.name, "n": len(row.trials)},
            **_statistics({name: row.values(name) for name in METRICS}),
            **_accuracy(row, best, baseline),
            **_statistics({name: row.costs(name) for name in ("images_seen", "train_seconds")}),
        }
        for rank, (row, best, baseline) in enumerate(compared, 1)
    )
    balanced = len(set(np.bincount(rows[0].labels, minlength=len(setting.result.data.class_names)))) == 1
    shown_metrics = shown_metrics[balanced:]
    headers = ["rank", "method", _ACCURACY, "95 % interval", f"Δ {BASELINE}", "95 % of Δ"]
    headers += [*(METRICS[name] for name in shown_metrics), "n", "images seen", "train s"]
    cells = [
        [
            *(Cell(str(own["rank"])), Cell(own["method"]), _accuracy_cell(own), Cell(_range(own["low"], own["high"]))),
            *(_delta_cell(own), Cell(_range(own["delta_low"], own["delta_high"]))),
            *(Cell(_percent(own, name)) for name in shown_metrics),
            *(Cell(f"{own[name]:.0f}") for name in ("n", "images_seen", "train_seconds")),
        ]
        for _, own in frame.iterrows()
    ]
    about = f"{_TESTED} {_BALANCED}" if balanced else _TESTED
    notes = [about, *_of_baseline(setting, rows), *_caveats(rows, shown_metrics)]
    return Table(title_of(setting.result), frame, headers, cells, notes)


def ratios(settings: Sequence[Setting]) -> list[Table]:
    """Return the paper's Table 1: methods by ratios, accuracy and the difference to the baseline."""
    return [_ratios(columns, notes) for columns, notes in families(settings)]


def _ratios(columns: Mapping[float, tuple[Setting, Sequence[Row]]], notes: Sequence[str]) -> Table:
    frame = pd.DataFrame(
        {"method": row.name, "ratio": ratio, "n": len(row.trials), **_accuracy(row, best, baseline)}
        for ratio, (setting, rows) in columns.items()
        for row, best, baseline in zip(rows, *_comparisons(setting, rows), strict=True)
    )
    places = {(own["method"], own["ratio"]): own for _, own in frame.iterrows()}
    # Methods that have all ratios come first: means over other ratios say nothing of each other.
    order = frame.groupby("method")[ACCURACY].agg(["count", "mean"])
    cells = []
    for method in order.sort_values(["count", "mean"], ascending=False, kind="stable").index:
        line = [Cell(method)]
        for ratio in columns:
            own = places.get((method, ratio))
            line += [Cell("n/a"), Cell("n/a")] if own is None else [_accuracy_cell(own), _delta_cell(own)]
        cells.append(line)
    headers = [header for ratio in columns for header in (f"ratio {ratio:g}", f"Δ {BASELINE}")]
    rows = [row for _, own in columns.values() for row in own]
    about = f"{_ACCURACY.capitalize()}, n = {len(rows[0].trials)} trials. {_TESTED}"
    told = [
        f"Ratio {ratio:g}: {line.rstrip('.')}."
        for ratio, (setting, own) in columns.items()
        for line in (*setting.result.data.notes, *_of_baseline(setting, own))
    ]
    title = title_of(rows[0].result, ratio=False)
    return Table(title, frame, ["method", *headers], cells, [*notes, about, *told, *_caveats(rows, ())])


def groups(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return the paper's Table 2: accuracy of head, medium and tail, and the mean of the three, with intervals."""
    rows = sorted(rows, key=lambda row: -np.nan_to_num(row.values(GROUP_MEAN).mean(), nan=-1.0))
    compared = (compare(rows, rows[0], GROUP_MEAN), compare(rows, setting.baseline, GROUP_MEAN))
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **_statistics({name: row.values(name) for name in GROUPS}),
            **{f"{name}_{end}": getattr(row.estimate(name), end) for name in GROUPS for end in ("low", "high")},
            **_differences(best, baseline),
        }
        for row, best, baseline in zip(rows, *compared, strict=True)
    )
    best = frame[list(GROUPS)].max()
    cells = [
        [
            Cell(own["method"]),
            *(Cell(_interval(own, name), own[name] == best[name]) for name in GROUPS[:-1]),
            Cell(_interval(own, GROUP_MEAN) + " ≈" * bool(own["tie"]), own[GROUP_MEAN] == best[GROUP_MEAN]),
            *(_delta_cell(own), Cell(_range(own["delta_low"], own["delta_high"])), Cell(str(own["n"]))),
        ]
        for _, own in frame.iterrows()
    ]
    names = setting.result.data.class_names
    listed = [
        f"{name}: {', '.join(names[own] for own in members)}" for name, members in setting.result.data.groups.items()
    ]
    about = f"{_TESTED} {'; '.join(listed)}. The mean of group means is the paper's All; ≈ and Δ are of it."
    headers = ["method", *(METRICS[name] for name in GROUPS), f"Δ {BASELINE}", "95 % of Δ", "n"]
    notes = [about, *_of_baseline(setting, rows), *_caveats(rows, GROUPS)]
    return Table(title_of(setting.result), frame, headers, cells, notes)


def ablation(settings: Sequence[Setting]) -> list[Table]:
    """Return the paper's Table 3: pre-training and sample selection by querying strategy.

    Rows that differ in other hyper-parameters are in tables of their own.
    """
    spanned = {*ABLATION, ABLATION_COLUMN}
    tables = []
    for setting, rows, notes in apart(settings):
        others: dict[str, list[Row]] = {}
        for row in rows:
            if spanned <= set(row.result.hyperparameters):
                others.setdefault(_beside(row.result, spanned), []).append(row)
        for own in others.values():
            table = _told(_ablation(setting, own), setting, notes)
            tables.append(replace(table, title=f"{_variant(own, others.values(), spanned)}; {table.title}"))
    return tables


def _beside(result: Result, spanned: Collection[str]) -> str:
    """Return all that a table of `spanned` hyper-parameters must have in common, as text."""
    rest = {name: value for name, value in result.hyperparameters.items() if name not in spanned}
    return json.dumps([result.method, rest, result.plugin], sort_keys=True)


def _variant(rows: Sequence[Row], others: Collection[Sequence[Row]], spanned: Collection[str]) -> str:
    """Return what tells a table from those of other variants: method and changes, and where that is alike, all."""

    def named(own: Sequence[Row]) -> str:
        changed = [f"{name}={value}" for name, value in own[0].result.changed.items() if name not in spanned]
        return " ".join([own[0].result.method, *changed])

    if [named(own) for own in others].count(named(rows)) == 1:
        return named(rows)
    rest = [f"{name}={value}" for name, value in rows[0].result.hyperparameters.items() if name not in spanned]
    text = (rows[0].result.plugin or "")[:8]
    return " ".join([rows[0].result.method, *rest, *([f"[{text}]"] if text else [])])


def _ablation(setting: Setting, rows: Sequence[Row]) -> Table:
    frame = pd.DataFrame(
        {
            **{name: row.result.hyperparameters[name] for name in (*ABLATION, ABLATION_COLUMN)},
            **{"method": row.name, "n": len(row.trials)},
            **_accuracy(row, best, baseline),
        }
        for row, best, baseline in zip(rows, *_comparisons(setting, rows), strict=True)
    )
    columns = sorted(frame[ABLATION_COLUMN].unique(), key=lambda name: (name != "none", name != "random", name))
    places = {tuple(own[name] for name in (*ABLATION, ABLATION_COLUMN)): own for _, own in frame.iterrows()}
    cells = []
    for place in sorted({place[:-1] for place in places}):
        found = [places.get((*place, column)) for column in columns]
        cells.append([*map(Cell, place), *(Cell("n/a") if own is None else _accuracy_cell(own) for own in found)])
    headers = [*ABLATION.values(), *(f"{ABLATION_COLUMN}: {column.replace('_', ' ')}" for column in columns)]
    about = f"{_ACCURACY.capitalize()}, n = {len(rows[0].trials)} trials. {_TESTED}"
    return Table(title_of(setting.result), frame, headers, cells, [about, *_caveats(rows, ())])


def per_class(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return the numbers of the paper's Figure 3: accuracy of each class with its interval."""
    names, counts = setting.result.data.class_names, setting.result.data.class_counts
    by_row = [pd.DataFrame(_class_numbers(row)) for row in rows]
    cells = [
        [
            Cell(row.name),
            *(Cell(_interval(own, "accuracy")) for _, own in numbers.iterrows()),
            Cell(str(len(row.trials))),
        ]
        for row, numbers in zip(rows, by_row, strict=True)
    ]
    tested = np.bincount(rows[0].labels, minlength=len(names))
    sizes = ", ".join(f"{name} {count}" for name, count in zip(names, tested, strict=True))
    headers = ["method", *(f"{name} ({count})" for name, count in zip(names, counts, strict=True)), "n"]
    interval = _INTERVALS if len(rows[0].trials) > 1 else "intervals: Wilson's 95 % over test images"
    about = f"Percent, {_SPREAD}; {interval}. Behind a class: its training images. Test images: {sizes}."
    caveats = _caveats(rows, ("per_class_accuracy",))
    return Table(title_of(setting.result), pd.concat(by_row, ignore_index=True), headers, cells, [about, *caveats])


def _class_numbers(row: Row) -> list[dict[str, Any]]:
    """Return the numbers of each class; `wilson_low` and `wilson_high` are of the mean share, trials not pooled."""
    result, recalls = row.result, row.recalls()
    numbers = []
    for label, name in enumerate(result.data.class_names):
        tested, estimate = int((row.labels == label).sum()), row.class_estimate(label)
        wilson = wilson_interval(recalls[:, label].mean() * tested if tested else 0, tested)
        numbers.append(
            {
                **{"method": row.name, "n": len(row.trials), "class": name},
                **{"training_images": result.data.class_counts[label], "test_images": tested},
                **_statistics({"accuracy": recalls[:, label]}),
                **{"accuracy_low": estimate.low, "accuracy_high": estimate.high},
                **dict(zip(("wilson_low", "wilson_high"), wilson, strict=True)),
            }
        )
    return numbers


def _interval(numbers: Mapping[str, Any], name: str) -> str:
    """Return a metric with its interval."""
    if np.isnan(numbers[name]):
        return "n/a"
    return f"{_percent(numbers, name)} {_range(numbers[f'{name}_low'], numbers[f'{name}_high'])}"


def cost(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return what each method costs, shared stages charged in full."""
    frame = pd.DataFrame(
        {"method": row.name, "n": len(row.trials), **_statistics({name: row.costs(name) for name in COSTS})}
        for row in rows
    )
    cells = [
        [Cell(own["method"]), *(Cell(_amount(own, name)) for name in COSTS), Cell(str(own["n"]))]
        for _, own in frame.iterrows()
    ]
    devices = sorted({record.result.device for row in rows for record in row.records})
    about = (
        f"{_SPREAD.capitalize()}; shared stages are charged in full. Device: {'; '.join(devices)}. Seconds are of the "
        "clock, with whatever else ran beside; compare images and passes. On a CPU, memory is the most that the "
        "process had, which may have run other trials before."
    )
    return Table(title_of(setting.result), frame, ["method", *COSTS.values(), "n"], cells, [about])


def metrics(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return all metrics."""
    frame = pd.DataFrame(
        {"method": row.name, "n": len(row.trials), **_statistics({name: row.values(name) for name in METRICS})}
        for row in rows
    )
    about = f"Percent (cross-entropy: nats), {_SPREAD}; bold: best."
    headers = ["method", *METRICS.values(), "n"]
    cells = _metric_cells(frame, tuple(METRICS))
    return Table(title_of(setting.result), frame, headers, cells, [about, *_caveats(rows, METRICS)])


def _each(build: Callable[[Setting, Sequence[Row]], Table]) -> Callable[[Sequence[Setting]], list[Table]]:
    """Return a kind of table that has one for each setting and set of trials."""

    def built(settings: Sequence[Setting]) -> list[Table]:
        return [_told(build(setting, rows), setting, notes) for setting, rows, notes in apart(settings)]

    return built


def _told(table: Table, setting: Setting, notes: Sequence[str]) -> Table:
    """Return a table with the lines that say why it is apart, and in its numbers what it is of."""
    data = setting.result.data
    frame = table.frame.assign(dataset=data.dataset, split=data.split, ratio=data.ratio)
    return replace(table, frame=frame, notes=[*notes, *table.notes])


TABLES: Mapping[str, Callable[[Sequence[Setting]], list[Table]]] = {
    "overview": _each(overview),
    "ratios": ratios,
    "groups": _each(groups),
    "ablation": ablation,
    "per-class": _each(per_class),
    "cost": _each(cost),
    "metrics": _each(metrics),
}
"""Every kind of table by its name on the command line."""


def _of_baseline(setting: Setting, rows: Sequence[Row]) -> list[str]:
    """Return a line where Δ is not simply the difference of two rows: why it is n/a, or over which trials."""
    baseline = setting.baseline
    if baseline is None:
        several = any(row.result.method == BASELINE for row in setting.rows)
        reason = f"there are several versions of {BASELINE}" if several else f"no trial of {BASELINE} is finished"
        return [f"Δ n/a, {reason}."]
    common = common_trials(rows[0], baseline)
    if not common:
        return [f"Δ n/a, no trial in common with {BASELINE}."]
    if baseline.trials == rows[0].trials:
        return []
    return [f"Δ is over the trials that {BASELINE} has too: {', '.join(map(str, common))}."]


def _comparisons(setting: Setting, rows: Sequence[Row]) -> tuple[list[Comparison], list[Comparison]]:
    """Return the rows' comparisons with the best of them and with the baseline."""
    return compare(rows, rows[0]), compare(rows, setting.baseline)


def _accuracy(row: Row, best: Comparison, baseline: Comparison) -> dict[str, Any]:
    """Return the numbers of a row's accuracy: interval, difference to the baseline, p-values."""
    return {
        **_statistics({ACCURACY: row.values(ACCURACY)}),
        **{"low": row.accuracy.low, "high": row.accuracy.high},
        **_differences(best, baseline),
    }


def _differences(best: Comparison, baseline: Comparison) -> dict[str, Any]:
    return {
        **{"delta": baseline.delta, "delta_low": baseline.low, "delta_high": baseline.high},
        **{"p_baseline": baseline.p_value, "p_best": best.p_value, "best": best.reference},
        **{"tie": best.chance, "tie_baseline": baseline.chance},
    }


def _statistics(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return mean and, as `<name>_sd`, standard deviation of each quantity; of one trial there is none."""
    numbers: dict[str, float] = {}
    for name, own in values.items():
        numbers[name] = float(own.mean())
        numbers[f"{name}_sd"] = float(own.std(ddof=1)) if len(own) > 1 else float("nan")
    return numbers


def _metric_cells(frame: pd.DataFrame, names: Sequence[str]) -> list[list[Cell]]:
    """Return lines of method, metrics with the best ones bold, and n."""
    best = {name: frame[name].max() if HIGHER_IS_BETTER[name] else frame[name].min() for name in names}
    return [
        [
            Cell(own["method"]),
            *(
                Cell(
                    _percent(own, name) if name != "cross_entropy" else _mean(own, name, 1, 3), own[name] == best[name]
                )
                for name in names
            ),
            Cell(str(own["n"])),
        ]
        for _, own in frame.iterrows()
    ]


def _accuracy_cell(numbers: Mapping[str, Any]) -> Cell:
    return Cell(_percent(numbers, ACCURACY) + " ≈" * bool(numbers["tie"]), bool(numbers["best"]))


def _delta_cell(numbers: Mapping[str, Any]) -> Cell:
    return Cell(_signed(numbers["delta"]) + " ≈" * bool(numbers["tie_baseline"]))


def _percent(numbers: Mapping[str, Any], name: str) -> str:
    return _mean(numbers, name, 100, 2)


def _mean(numbers: Mapping[str, Any], name: str, scale: float, digits: int) -> str:
    mean, sd = scale * numbers[name], scale * numbers[f"{name}_sd"]
    if np.isnan(mean):
        return "n/a"
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def _amount(numbers: Mapping[str, Any], name: str) -> str:
    mean, sd = numbers[name], numbers[f"{name}_sd"]
    if np.isnan(mean):
        return "n/a"
    return f"{mean:.0f}" if np.isnan(sd) or sd == 0 else f"{mean:.0f} ± {sd:.0f}"


def _range(low: float, high: float) -> str:
    return "n/a" if np.isnan(low) or np.isnan(high) else f"[{100 * low:.1f}, {100 * high:.1f}]"


def _signed(difference: float) -> str:
    return "n/a" if np.isnan(difference) else f"{100 * difference:+.2f}"


def _caveats(rows: Sequence[Row], shown: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Return lines on what the numbers do not say: intervals of one trial, why a metric is undefined."""
    lines = []
    if len(rows[0].trials) == 1:
        lines.append(
            "One trial: intervals and ≈ are over test images alone and compare these networks, not the methods."
        )
    reasons = {name: reason for row in rows for own in row.measured for name, reason in own["undefined"].items()}
    told: dict[str, list[str]] = {}
    for name in shown:
        if name in reasons:
            told.setdefault(reasons[name], []).append(METRICS.get(name, name.replace("_", " ")))
    lines += [f"n/a, {reason}: {', '.join(names)}." for reason, names in told.items()]
    return lines
