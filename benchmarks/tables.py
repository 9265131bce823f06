"""The tables of a results folder: overview, the paper's Tables 1 to 3 and Figure 3, cost, all metrics.

Numbers are mean ± standard deviation over the trials (ddof = 1), in percent except for costs and cross-entropy.
Rows of different trials and settings of different data, splits or protocols are never in one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ltbench.benchmarks.metrics import HIGHER_IS_BETTER, METRICS, wilson_interval
from ltbench.benchmarks.rendering import Cell, Table
from ltbench.benchmarks.standings import BASELINE, SIGNIFICANT, Comparison, Row, Setting, compare

GROUPS = ("head", "medium", "tail", "mean_of_group_means")
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

_ACCURACY = METRICS["mean_class_accuracy"]
_SPREAD = "mean ± sd over n trials (ddof = 1)"
_TESTED = (
    f"Percent, {_SPREAD}; intervals: 95 %, over trials and test images. Bold: best; ≈: the difference to the best "
    f"(behind Δ: to {BASELINE}) can be chance, paired test, Holm-adjusted p ≥ {SIGNIFICANT}."
)
_BALANCED = "Balanced test set: micro top-1 equals mean per-class accuracy."


def title_of(result: Mapping[str, Any], *, ratio: bool = True) -> str:
    """Return the title of a table: data, split, protocol and, unless its columns are ratios, the ratio."""
    protocol, split = result["protocol"], f"split {result['split']}"
    data = f"{result['title']}, {split}"
    if ratio:
        data = f"{result['title']}, ratio {result['ratio']:g}, {split} ({result['split_digest'][:8]})"
    network = f"{protocol['backbone']} {protocol['image_size']} px, at most {protocol['epochs']} epochs"
    notes = "".join(f"; {note}" for note in result["notes"]) if ratio else ""
    return f"{data}; protocol {result['protocol_digest'][:8]}: {network}{notes}"


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
    balanced = bool((frame["top1"] - frame["mean_class_accuracy"]).abs().max() < 1e-9)
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
    notes = [f"{_TESTED} {_BALANCED}" if balanced else _TESTED, *_caveats(rows, shown_metrics)]
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
    mean = frame.groupby("method")["mean_class_accuracy"].mean()
    cells = []
    for method in mean.sort_values(ascending=False, kind="stable").index:
        line = [Cell(method)]
        for ratio in columns:
            own = places.get((method, ratio))
            line += [Cell("n/a"), Cell("n/a")] if own is None else [_accuracy_cell(own), _delta_cell(own)]
        cells.append(line)
    headers = [header for ratio in columns for header in (f"ratio {ratio:g}", f"Δ {BASELINE}")]
    rows = [row for _, own in columns.values() for row in own]
    about = f"{_ACCURACY.capitalize()}, n = {len(rows[0].trials)} trials. {_TESTED}"
    title = title_of(rows[0].result, ratio=False)
    return Table(title, frame, ["method", *headers], cells, [*notes, about, *_caveats(rows, ())])


def groups(setting: Setting, rows: Sequence[Row]) -> Table:
    """Return the paper's Table 2: accuracy of head, medium and tail, and the mean of the three."""
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **_statistics({name: row.values(name) for name in GROUPS}),
            "delta": _mean_difference(row, setting.baseline, "mean_of_group_means"),
        }
        for row in rows
    ).sort_values("mean_of_group_means", ascending=False, kind="stable", ignore_index=True)
    cells = _metric_cells(frame, GROUPS)
    for line, delta in zip(cells, frame["delta"], strict=True):
        line.insert(-1, Cell(_signed(delta)))
    names = setting.result["class_names"]
    listed = [
        f"{name}: {', '.join(names[own] for own in members)}" for name, members in setting.result["groups"].items()
    ]
    about = (
        f"Percent, {_SPREAD}; bold: best. {'; '.join(listed)}. The mean of group means is the paper's All, Δ is of it."
    )
    headers = ["method", *(METRICS[name] for name in GROUPS), f"Δ {BASELINE}", "n"]
    return Table(title_of(setting.result), frame, headers, cells, [about, *_caveats(rows, GROUPS)])


def ablation(settings: Sequence[Setting]) -> list[Table]:
    """Return the paper's Table 3: pre-training and sample selection by querying strategy.

    Rows that differ in other hyper-parameters are in tables of their own.
    """
    spanned = {*ABLATION, ABLATION_COLUMN}
    tables = []
    for setting, rows, notes in _apart(settings):
        others: dict[str, list[Row]] = {}
        for row in rows:
            if spanned <= set(row.result["hyperparameters"]):
                rest = [f"{name}={value}" for name, value in row.result["changed"].items() if name not in spanned]
                others.setdefault(" ".join([row.result["method"], *rest]), []).append(row)
        for variant, own in others.items():
            table = _told(_ablation(setting, own), setting, notes)
            tables.append(replace(table, title=f"{variant}; {table.title}"))
    return tables


def _ablation(setting: Setting, rows: Sequence[Row]) -> Table:
    frame = pd.DataFrame(
        {
            **{name: row.result["hyperparameters"][name] for name in (*ABLATION, ABLATION_COLUMN)},
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
    """Return the numbers of the paper's Figure 3: accuracy of each class with Wilson's interval."""
    names, counts = setting.result["class_names"], setting.result["class_counts"]
    by_row = [pd.DataFrame(_class_numbers(row)) for row in rows]
    cells = [
        [Cell(row.name), *(_class_cell(own) for _, own in numbers.iterrows()), Cell(str(len(row.trials)))]
        for row, numbers in zip(rows, by_row, strict=True)
    ]
    tested = np.bincount(rows[0].labels, minlength=len(names))
    sizes = ", ".join(f"{name} {count}" for name, count in zip(names, tested, strict=True))
    headers = ["method", *(f"{name} ({count})" for name, count in zip(names, counts, strict=True)), "n"]
    about = (
        f"Percent, {_SPREAD}, [Wilson's 95 % interval over the test images of the class, trials not pooled]. "
        f"Behind a class: its training images. Test images: {sizes}."
    )
    caveats = _caveats(rows, ("per_class_accuracy",))
    return Table(title_of(setting.result), pd.concat(by_row, ignore_index=True), headers, cells, [about, *caveats])


def _class_numbers(row: Row) -> list[dict[str, Any]]:
    result, recalls = row.result, row.recalls()
    numbers = []
    for label, name in enumerate(result["class_names"]):
        tested = int((row.labels == label).sum())
        low, high = wilson_interval(recalls[:, label].mean() * tested if tested else 0, tested)
        numbers.append(
            {
                **{"method": row.name, "n": len(row.trials), "class": name},
                **{"training_images": result["class_counts"][label], "test_images": tested},
                **_statistics({"accuracy": recalls[:, label]}),
                **{"low": low, "high": high},
            }
        )
    return numbers


def _class_cell(numbers: Mapping[str, Any]) -> Cell:
    if np.isnan(numbers["accuracy"]):
        return Cell("n/a")
    return Cell(f"{_percent(numbers, 'accuracy')} {_range(numbers['low'], numbers['high'])}")


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
    devices = sorted({str(record.result.get("device", "unknown")) for row in rows for record in row.records})
    about = f"{_SPREAD.capitalize()}; shared stages are charged in full. Device: {'; '.join(devices)}."
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
        return [_told(build(setting, rows), setting, notes) for setting, rows, notes in _apart(settings)]

    return built


def _told(table: Table, setting: Setting, notes: Sequence[str]) -> Table:
    """Return a table with the lines that say why it is apart, and in its numbers what it is of."""
    names = ("dataset", "split", "ratio")
    frame = table.frame.assign(**{name: setting.result[name] for name in names})
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


def _apart(settings: Sequence[Setting]) -> list[tuple[Setting, Sequence[Row], list[str]]]:
    """Return what has a table of its own: setting, rows of the same trials, and lines that say why it is apart."""
    found = []
    for number, setting in enumerate(settings):
        near = [other for other in settings[:number] if _place(other) == _place(setting)]
        why = [why_apart(setting.result, near[0].result)] if near else []
        found += [(setting, rows, [*why, *trials]) for rows, trials in _by_trials(setting.by_trials())]
    return found


def _place(setting: Setting) -> tuple[Any, ...]:
    return setting.result["dataset"], setting.result["ratio"]


def _by_trials(groups: Sequence[Sequence[Row]]) -> list[tuple[Sequence[Row], list[str]]]:
    lines = [f"Trials {', '.join(map(str, rows[0].trials))}: rows of other trials are not mixed in." for rows in groups]
    return [(rows, [line] if len(groups) > 1 else []) for rows, line in zip(groups, lines, strict=True)]


def families(
    settings: Sequence[Setting],
) -> list[tuple[dict[float, tuple[Setting, Sequence[Row]]], list[str]]]:
    """Return what shares a table of ratios: for each ratio a setting and its rows of the same trials, and why apart.

    Settings share one if nothing but the ratio differs: data, kind of split, largest class, test images a class and
    protocol are the same. Where a ratio has two splits all the same, the second goes to a table of its own.
    """
    families: dict[tuple[Any, ...], dict[float, tuple[Setting, Sequence[Row]]]] = {}
    for setting in settings:
        result = setting.result
        key = tuple(result[name] for name in ("dataset", "variant", "split", "protocol_digest"))
        tested = np.bincount(setting.rows[0].labels).tolist()
        key += (max(result["class_counts"]), *tested)
        for rows in setting.by_trials():
            copy = 0
            while result["ratio"] in families.get((key, rows[0].trials, copy), {}):
                copy += 1
            families.setdefault((key, rows[0].trials, copy), {})[result["ratio"]] = (setting, rows)
    ordered = sorted(families, key=lambda key: (str(key[0]), -len(key[1]), key[1:]))
    firsts = {key: next(iter(families[key].values())) for key in ordered}
    found = []
    for number, key in enumerate(ordered):
        setting, rows = firsts[key]
        before = [firsts[other] for other in ordered[:number]]
        near = [other for other in before if other[0].result["dataset"] == setting.result["dataset"]]
        why = []
        if near and near[0][1][0].trials != rows[0].trials:
            why.append(f"Trials {', '.join(map(str, rows[0].trials))}: rows of other trials are not mixed in.")
        if near and near[0][0] is not setting:
            why.append(why_apart(setting.result, near[0][0].result))
        found.append((families[key], why))
    return found


def why_apart(result: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return one line that says in what two results differ that must not be mixed."""
    differing = [
        f"{name} {result[name]}, not {other[name]}" for name in ("variant", "split") if result[name] != other[name]
    ]
    mine, others = (dict(each["protocol"]) for each in (result, other))
    differing += [f"{name} {mine[name]}, not {others.get(name)}" for name in mine if mine[name] != others.get(name)]
    if result["split_digest"] != other["split_digest"] and result["ratio"] == other["ratio"]:
        differing.append(f"images of split {result['split_digest'][:8]}, not {other['split_digest'][:8]}")
    if max(result["class_counts"]) != max(other["class_counts"]):
        differing.append(f"largest class {max(result['class_counts'])}, not {max(other['class_counts'])}")
    return f"Not mixed with an earlier table: {'; '.join(differing) or 'other test images'}."


def _comparisons(setting: Setting, rows: Sequence[Row]) -> tuple[list[Comparison], list[Comparison]]:
    """Return the rows' comparisons with the best of them and with the baseline."""
    return compare(rows, rows[0]), compare(rows, setting.baseline)


def _accuracy(row: Row, best: Comparison, baseline: Comparison) -> dict[str, Any]:
    """Return the numbers of a row's accuracy: interval, difference to the baseline, p-values."""
    return {
        **_statistics({"mean_class_accuracy": row.values("mean_class_accuracy")}),
        **{"low": row.accuracy.low, "high": row.accuracy.high},
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


def _mean_difference(row: Row, reference: Row | None, metric: str) -> float:
    """Return the mean difference of a metric over the trials of both, NaN without any."""
    common = set(row.trials) & set(reference.trials) if reference else set()
    if not common:
        return float("nan")
    first, second = (
        [value for trial, value in zip(each.trials, each.values(metric), strict=True) if trial in common]
        for each in (row, reference)
    )
    return float(np.mean(first) - np.mean(second))


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
    return Cell(_percent(numbers, "mean_class_accuracy") + " ≈" * bool(numbers["tie"]), bool(numbers["best"]))


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
