"""The tables of a results folder: overview, the paper's Tables 1 to 3 and Figure 3, cost, all metrics, and more.

Numbers are mean ± standard deviation over the trials (ddof = 1), in percent except for costs and cross-entropy.
Rows of different trials and settings of different data, splits or protocols are never in one table.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ltbench.benchmarks.analysis.ablation import ablation
from ltbench.benchmarks.analysis.advice.costs import (
    departures,
    optimizer_steps,
    own_rates,
    own_stops,
    several_networks,
    steps_of,
)
from ltbench.benchmarks.analysis.cells import (
    accuracy_cell,
    accuracy_numbers,
    amount,
    delta_cell,
    difference_numbers,
    lines_of,
    mean_sd,
    percent,
    percent_interval,
    range_text,
    same,
    signed,
    statistics,
)
from ltbench.benchmarks.analysis.metrics import METRICS, higher_is_better, metric_labels, wilson_interval
from ltbench.benchmarks.analysis.notes import (
    baseline_notes,
    caveats,
    intervals,
    signs,
    spread,
    spread_alone,
    tested,
    title_of,
)
from ltbench.benchmarks.analysis.ranks import ranks
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.analysis.reliability.tables import conformal, reliability
from ltbench.benchmarks.analysis.rendering import OPEN, Cell, Table, annotated
from ltbench.benchmarks.analysis.rows import ACCURACY, GROUP_MEAN, Row, comparable
from ltbench.benchmarks.analysis.standings import (
    BASELINE,
    Family,
    Panel,
    Setting,
    compare,
    comparisons,
    doubts_of,
    families_of,
    settings_of,
)
from ltbench.benchmarks.analysis.statistics.intervals import FEW_IMAGES

GROUPS = ("head", "medium", "tail", GROUP_MEAN)
STEPS = "optimizer_steps"
COSTS = {
    STEPS: "optimizer steps",
    "train_seconds": "train s",
    "images_seen": "training images seen",
    "forward_images": "forward passes",
    "parameters": "parameters",
    "peak_memory_mib": "peak memory MiB",
}
_ACCURACY = METRICS[ACCURACY]
_BALANCED = "Balanced test set: micro top-1 equals mean per-class accuracy."


def _places(rows: Sequence[Row]) -> list[int]:
    """Return the rank of each row by its accuracy; equal rows share the best of their ranks."""
    accuracies = pd.Series(comparable([row.accuracy.value for row in rows]))
    return accuracies.rank(method="min", ascending=False).astype(int).tolist()


def overview(panel: Panel) -> Table:
    """Return the leaderboard: accuracy with interval, difference to the baseline, groups, cost."""
    setting, rows = panel.setting, panel.rows
    shown_metrics = ["top1", *GROUPS, "macro_f1", "macro_auroc"]
    labels = metric_labels(setting.data.special_classes)
    compared = comparisons(panel)
    frame = pd.DataFrame(
        {
            **{"rank": rank, "method": row.name, "n": len(row.trials)},
            **statistics({name: row.values(name) for name in labels}),
            **accuracy_numbers(row, best, baseline),
            **statistics({"validation_gap": row.validation_gap()}),
            **_costs(row),
        }
        for rank, row, best, baseline in zip(_places(rows), rows, *compared, strict=True)
    )
    balanced = len(set(rows[0].test_counts[0])) == 1
    shown_metrics = shown_metrics[balanced:]
    headers = ["rank", "method", _ACCURACY, "95 % interval", f"Δ {BASELINE}", "95 % of Δ"]
    headers += [*(METRICS[name] for name in shown_metrics), "val − test", "n", "images seen", "train s"]
    cells = [
        [
            *(
                Cell(str(own["rank"])),
                Cell(own["method"]),
                accuracy_cell(own),
                Cell(range_text(own["low"], own["high"])),
            ),
            *(delta_cell(own), Cell(range_text(own["delta_low"], own["delta_high"]))),
            *(Cell(percent(own, name)) for name in shown_metrics),
            Cell(signed(own["validation_gap"])),
            *(Cell(f"{own[name]:.0f}") for name in ("n", "images_seen", "train_seconds")),
        ]
        for own in lines_of(frame)
    ]
    about = [signs(rows[0], *compared), tested(rows, *compared), _BALANCED * balanced]
    notes = [" ".join(filter(None, about)), *baseline_notes(panel), *departures(panel)]
    notes += [*several_networks(panel), *caveats(rows, shown_metrics)]
    return Table(title_of(setting.result), frame, headers, cells, notes)


def ratios(family: Family) -> Table:
    """Return the paper's Table 1: methods by ratios, accuracy and the difference to the baseline."""
    compared = {ratio: comparisons(panel) for ratio, panel in family.panels.items()}
    frame = pd.DataFrame(
        {"method": row.name, "ratio": ratio, "n": len(row.trials), **accuracy_numbers(row, best, baseline)}
        for ratio, panel in family.panels.items()
        for row, best, baseline in zip(panel.rows, *compared[ratio], strict=True)
    )
    places = {(own["method"], own["ratio"]): own for own in lines_of(frame)}
    # Methods that have all ratios come first: means over other ratios say nothing of each other.
    order = frame.groupby("method")[ACCURACY].agg(["count", "mean"])
    order["mean"] = comparable(order["mean"])
    cells = []
    for method in order.sort_values(["count", "mean"], ascending=False, kind="stable").index:
        line = [Cell(method)]
        for ratio in family.panels:
            own = places.get((method, ratio))
            line += [Cell("n/a"), Cell("n/a")] if own is None else [accuracy_cell(own), delta_cell(own)]
        cells.append(line)
    headers = [header for ratio in family.panels for header in (f"ratio {ratio:g}", f"Δ {BASELINE}")]
    rows = [row for panel in family.panels.values() for row in panel.rows]
    largest = max(family.panels)
    every = [list(itertools.chain(*own)) for own in zip(*compared.values(), strict=True)]
    about = f"{_ACCURACY.capitalize()}, {rows[0].extent}. {signs(rows[0], *every)}"
    if found := tested(family.panels[largest].rows, *compared[largest]):
        about += f" At ratio {largest:g}: {found}"
    of_ratios = [
        f"Ratio {ratio:g}: {line.rstrip('.')}."
        for ratio, panel in family.panels.items()
        for line in (*panel.setting.data.notes, *baseline_notes(panel))
    ]
    title = title_of(rows[0].result, ratio=False)
    notes = [*family.notes, *doubts_of(family.panels.values()), about, *of_ratios, *caveats(rows, ())]
    data = rows[0].result.data
    subject = f"{data.dataset} {data.split}"
    return Table(title, frame, ["method", *headers], cells, notes, "ratios", subject)


def groups(panel: Panel) -> Table:
    """Return the paper's Table 2: accuracy of head, medium and tail, and the mean of the three, with intervals."""
    setting = panel.setting
    rows = sorted(panel.rows, key=lambda row: -comparable(np.nan_to_num(row.values(GROUP_MEAN).mean(), nan=-1.0)))
    compared = (compare(rows, rows[0], GROUP_MEAN, best=True), compare(rows, setting.baseline, GROUP_MEAN))
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **statistics({name: row.values(name) for name in GROUPS}),
            **{f"{name}_{end}": getattr(row.estimate(name), end) for name in GROUPS for end in ("low", "high")},
            **difference_numbers(best, baseline),
        }
        for row, best, baseline in zip(rows, *compared, strict=True)
    )
    best = frame[list(GROUPS)].max()
    cells = [
        [
            Cell(own["method"]),
            *(Cell(percent_interval(own, name), same(own[name], best[name])) for name in GROUPS[:-1]),
            Cell(
                percent_interval(own, GROUP_MEAN) + OPEN * bool(own["open_best"]),
                same(own[GROUP_MEAN], best[GROUP_MEAN]),
            ),
            *(delta_cell(own), Cell(range_text(own["delta_low"], own["delta_high"])), Cell(str(own["n"]))),
        ]
        for own in lines_of(frame)
    ]
    names = setting.data.class_names
    listed = [f"{name}: {', '.join(names[own] for own in members)}" for name, members in setting.data.groups.items()]
    about = [signs(rows[0], *compared), tested(rows, *compared), f"{'; '.join(listed)}."]
    about.append("The mean of group means is the paper's All; Δ and tests are of it.")
    headers = ["method", *(METRICS[name] for name in GROUPS), f"Δ {BASELINE}", "95 % of Δ", "n"]
    notes = [" ".join(filter(None, about)), *baseline_notes(panel), *caveats(rows, GROUPS)]
    return Table(title_of(setting.result), frame, headers, cells, notes)


def per_class(panel: Panel) -> Table:
    """Return the numbers of the paper's Figure 3: accuracy of each class with its interval."""
    data, rows = panel.setting.data, panel.rows
    names, counts = data.class_names, data.class_counts
    by_row = [pd.DataFrame(_class_numbers(row)) for row in rows]
    cells = [
        [
            Cell(row.name),
            *(Cell(percent_interval(own, "accuracy")) for own in lines_of(numbers)),
            Cell(str(len(row.trials))),
        ]
        for row, numbers in zip(rows, by_row, strict=True)
    ]
    tested = rows[0].test_counts[0]
    sizes = ", ".join(f"{name} {count}" for name, count in zip(names, tested, strict=True))
    headers = ["method", *(f"{name} ({count})" for name, count in zip(names, counts, strict=True)), "n"]
    interval = intervals(rows[0]) if len(rows[0].trials) > 1 else "intervals: Wilson's 95 % over test images"
    about = f"Percent, {spread(rows[0])}; {interval}. Behind a class: its training images. Test images: {sizes}."
    notes = [about, *_without_interval(by_row, names), *caveats(rows, ("per_class_accuracy",))]
    return Table(title_of(panel.setting.result), pd.concat(by_row, ignore_index=True), headers, cells, notes)


def _without_interval(by_row: Iterable[pd.DataFrame], names: Sequence[str]) -> list[str]:
    """Return a line on classes that have an accuracy and, of two trials, no interval."""
    left = {name for own in by_row for name in own.loc[own["accuracy"].notna() & own["accuracy_low"].isna(), "class"]}
    if not left:
        return []
    shown = ", ".join(name for name in names if name in left)
    return [f"n/a, two trials of fewer than {FEW_IMAGES} test images or groups of them: intervals of {shown}."]


def _class_numbers(row: Row) -> list[dict[str, Any]]:
    """Return the numbers of each class; `wilson_low` and `wilson_high` are of the mean share, trials not pooled.

    Of folds they are for as many fewer images as the intervals beside them (`fold_inflation`).
    """
    result, recalls = row.result, row.recalls()
    numbers = []
    for label, name in enumerate(result.data.class_names):
        tested, estimate = int(row.test_counts[0, label]), row.class_estimate(label)
        images = tested / row.inflation
        wilson = wilson_interval(recalls[:, label].mean() * images if tested else 0, images)
        numbers.append(
            {
                **{"method": row.name, "n": len(row.trials), "class": name},
                **{"training_images": result.data.class_counts[label], "test_images": tested},
                **statistics({"accuracy": recalls[:, label]}),
                **{"accuracy_low": estimate.low, "accuracy_high": estimate.high},
                **dict(zip(("wilson_low", "wilson_high"), wilson, strict=True)),
            }
        )
    return numbers


def cost(panel: Panel) -> Table:
    """Return what each method costs, shared stages charged in full, and where its training is not the protocol's."""
    baseline, others = panel.setting.baseline, [name for name in COSTS if name != STEPS]
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **{
                "steps_of_baseline": steps_of(row, baseline),
                "learning_rates": own_rates(row),
                "stopping": own_stops(row),
            },
            **_costs(row),
        }
        for row in panel.rows
    )
    cells = [
        [
            *(Cell(own["method"]), Cell(amount(own, STEPS)), Cell(_multiple(own["steps_of_baseline"]))),
            *(Cell(own["learning_rates"] or "-"), Cell(own["stopping"] or "-")),
            *(Cell(amount(own, name) + "*" * (name == "train_seconds" and row.has_waited)) for name in others),
            Cell(str(own["n"])),
        ]
        for own, row in zip(lines_of(frame), panel.rows, strict=True)
    ]
    headers = ["method", COSTS[STEPS], f"of {BASELINE}'s", "own learning rates", "own stopping rules"]
    devices = sorted({record.result.device for row in panel.rows for record in row.records})
    about = (
        f"{spread_alone(panel.rows[0]).capitalize()}; shared stages are charged in full. Learning rates: of stages "
        "with another one than the protocol's, as multiples of it. Stopping rules: of stages that do not stop by the "
        f"protocol's; none: the whole stage is trained. Device: {'; '.join(devices)}. Seconds are of the clock, "
        "whatever else ran beside; compare images and passes. A * marks times of a CPU that computed in less than "
        "80 % of them, beside other work. On a CPU, memory is the most that the process had, other trials included."
    )
    headers += [*(COSTS[name] for name in others), "n"]
    return Table(title_of(panel.setting.result), frame, headers, cells, [about])


def _costs(row: Row) -> dict[str, float]:
    """Return mean and standard deviation of each of `COSTS`."""
    return statistics({name: optimizer_steps(row) if name == STEPS else row.costs(name) for name in COSTS})


def _multiple(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.2f}"


def metrics(panel: Panel) -> Table:
    """Return all metrics."""
    labels = metric_labels(panel.setting.data.special_classes)
    frame = pd.DataFrame(
        {"method": row.name, "n": len(row.trials), **statistics({name: row.values(name) for name in labels})}
        for row in panel.rows
    )
    over = "" if panel.rows[0].folds else ", so over trials alone, the test images as given"
    about = f"Percent (cross-entropy: nats), {spread(panel.rows[0])}{over}; bold: best."
    headers = ["method", *labels.values(), "n"]
    cells = _metric_cells(frame, tuple(labels))
    notes = [about, *caveats(panel.rows, labels)]
    return Table(title_of(panel.setting.result), frame, headers, cells, notes)


_PANEL_TABLES: Mapping[str, Callable[[Panel], Table | list[Table]]] = {
    "overview": overview,
    "groups": groups,
    "per-class": per_class,
    "metrics": metrics,
    "cost": cost,
    "ablation": ablation,
    "reliability": reliability,
    "conformal": conformal,
}


def setting_tables(kind: str, setting: Setting) -> list[Table]:
    """Return the tables of one kind and one setting: one for each set of trials, and each variant of an ablation.

    Parameters
    ----------
    kind : of `KINDS`, not `ratios` or `ranks`
    """
    data, tables = setting.data, []
    for panel in setting.panels():
        built = _PANEL_TABLES[kind](panel)
        for table in built if isinstance(built, list) else [built]:
            frame = table.frame.assign(dataset=data.dataset, split=data.split, ratio=data.ratio)
            subject = f"{data.dataset} {data.split} r{data.ratio:g}"
            notes = [*panel.notes, *table.notes]
            tables.append(replace(table, frame=frame, notes=notes, kind=kind, subject=subject))
    return tables


def tables_of(kind: str, settings: Sequence[Setting]) -> list[Table]:
    """Return the tables of one kind, of `KINDS`."""
    if kind == "ratios":
        return [ratios(family) for family in families_of(settings)]
    if kind == "ranks":
        return ranks(settings)
    return [table for setting in settings for table in setting_tables(kind, setting)]


def all_tables(
    records: Iterable[Record], kinds: Sequence[str] = ("overview",), notes: Sequence[str] = ()
) -> list[Table]:
    """Return the tables of records, those of the largest ratio last.

    Parameters
    ----------
    kinds : of `KINDS`
    notes : lines to print below the last table
    """
    settings = settings_of(records)
    return annotated([table for kind in kinds for table in tables_of(kind, settings)], notes)


def _metric_cells(frame: pd.DataFrame, names: Sequence[str]) -> list[list[Cell]]:
    """Return lines of method, metrics with the best ones bold, and n."""
    best = {name: frame[name].max() if higher_is_better(name) else frame[name].min() for name in names}
    return [
        [
            Cell(own["method"]),
            *(
                Cell(
                    percent(own, name) if name != "cross_entropy" else mean_sd(own, name, 1, 3),
                    same(own[name], best[name]),
                )
                for name in names
            ),
            Cell(str(own["n"])),
        ]
        for own in lines_of(frame)
    ]
