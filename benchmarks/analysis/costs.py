"""What rows cost: steps, images and time, and in what a row's training departs from the protocol's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ltbench.benchmarks.analysis.cells import amount, lines_of, statistics
from ltbench.benchmarks.analysis.notes import SPREAD, title_of
from ltbench.benchmarks.analysis.records import StageCost
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import BASELINE, Panel, common_trials

STEPS = "optimizer_steps"
COSTS = {
    STEPS: "optimizer steps",
    "train_seconds": "train s",
    "images_seen": "training images seen",
    "forward_images": "forward passes",
    "parameters": "parameters",
    "peak_memory_mib": "peak memory MiB",
}
_EQUAL = 0.01  # shares of steps that differ by less are not worth a note


def cost(panel: Panel) -> Table:
    """Return what each method costs, shared stages charged in full, and where its training is not the protocol's."""
    baseline, others = panel.setting.baseline, [name for name in COSTS if name != STEPS]
    frame = pd.DataFrame(
        {
            **{"method": row.name, "n": len(row.trials)},
            **{"steps_of_baseline": steps_of(row, baseline), "learning_rates": _rates(row), "stopping": _stops(row)},
            **statistics({STEPS: _steps(row)} | {name: row.costs(name) for name in others}),
        }
        for row in panel.rows
    )
    cells = [
        [
            *(Cell(own["method"]), Cell(amount(own, STEPS)), Cell(_share(own["steps_of_baseline"]))),
            *(Cell(own["learning_rates"] or "-"), Cell(own["stopping"] or "-")),
            *(Cell(amount(own, name)) for name in others),
            Cell(str(own["n"])),
        ]
        for own in lines_of(frame)
    ]
    headers = ["method", COSTS[STEPS], f"of {BASELINE}'s", "own learning rates", "own stopping rules"]
    devices = sorted({record.result.device for row in panel.rows for record in row.records})
    about = (
        f"{SPREAD.capitalize()}; shared stages are charged in full. Learning rates: of stages with another one than "
        "the protocol's, as multiples of it. Stopping rules: of stages that do not stop by the protocol's; none: the "
        f"whole stage is trained. Device: {'; '.join(devices)}. Seconds are of the clock, with whatever else ran beside; "
        "compare images and passes. On a CPU, memory is the most that the process had, which may have run other trials "
        "before."
    )
    headers += [*(COSTS[name] for name in others), "n"]
    return Table(title_of(panel.setting.result), frame, headers, cells, [about])


def departures(panel: Panel) -> list[str]:
    """Return a line on the rows that take other numbers of steps than the baseline, or do not train as it does."""
    shares = {row.name: steps_of(row, panel.setting.baseline) for row in panel.rows}
    lists = {
        f"optimizer steps as a multiple of {BASELINE}'s": [
            f"{name} {share:.2f}" for name, share in shares.items() if abs(share - 1) > _EQUAL
        ],
        "own learning rates": [row.name for row in panel.rows if _rates(row)],
        "own stopping rules": [row.name for row in panel.rows if _stops(row)],
    }
    said = "; ".join(f"{what}: {', '.join(rows)}" for what, rows in lists.items() if rows)
    return [f"{said[0].upper()}{said[1:]} (see the table of costs)."] if said else []


def steps_of(row: Row, baseline: Row | None) -> float:
    """Return the optimizer steps of a row as a multiple of the baseline's, over the trials of both; NaN without any."""
    common = common_trials(row, baseline) if baseline else []
    if baseline is None or not common:
        return float("nan")
    own, others = (sum(_steps(each)[each.trials.index(trial)] for trial in common) for each in (row, baseline))
    return float(own / others) if others else float("nan")


def _steps(row: Row) -> np.ndarray:
    """Return the optimizer steps of each trial, all stages together, float64 [T]."""
    totals = [sum(stage.steps for stage in record.result.cost.stages) for record in row.records]
    return np.array(totals, dtype=np.float64)


def _rates(row: Row) -> str:
    return _by_stage(row, lambda stage: ", ".join(f"x{rate:g}" for rate in stage.rates if rate != 1))


def _stops(row: Row) -> str:
    return _by_stage(row, lambda stage: stage.stopping)


def _by_stage(row: Row, described: Callable[[StageCost], str]) -> str:
    """Return what is said of stages, each text once with the first stage of which it holds and how many others."""
    names: dict[str, list[str]] = {}
    for stage in (stage for record in row.records for stage in record.result.cost.stages):
        known = names.setdefault(described(stage), [])
        known += [stage.name] if stage.name not in known else []
    names.pop("", None)
    return "; ".join(
        f"{own[0]}{f' and {len(own) - 1} more' if len(own) > 1 else ''}: {text}" for text, own in names.items()
    )


def _share(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.2f}"
