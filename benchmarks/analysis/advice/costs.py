"""What rows cost beside the baseline, and in what they train as it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ltbench.benchmarks.analysis.records import StageCost
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import BASELINE, Panel, common_trials
from ltbench.methods import registry as registered_methods

_EQUAL_STEPS = 0.01  # shares of steps that differ by less are not worth a note


def departures(panel: Panel) -> list[str]:
    """Return a line on the rows that take other numbers of steps than the baseline, or do not train as it does."""
    shares = {row.name: steps_of(row, panel.setting.baseline) for row in panel.rows}
    lists = {
        f"optimizer steps as a multiple of {BASELINE}'s": [
            f"{name} {share:.2f}" for name, share in shares.items() if abs(share - 1) > _EQUAL_STEPS
        ],
        "own learning rates": [row.name for row in panel.rows if own_rates(row)],
        "own stopping rules": [row.name for row in panel.rows if own_stops(row)],
    }
    said = "; ".join(f"{what}: {', '.join(rows)}" for what, rows in lists.items() if rows)
    return [f"{said[0].upper()}{said[1:]} (numbers: leaderboard --table cost)."] if said else []


def networks_of(row: Row) -> str | None:
    """Return what the docstring of a row's method says of its networks; None where it has one."""
    method = row.result.method
    return registered_methods.details(method).get("Networks") if method in registered_methods.available() else None


def several_networks(panel: Panel) -> list[str]:
    """Return a line on the rows whose methods are ensembles, as their docstrings say, with the parameters they have."""
    marked = []
    for row in panel.rows:
        if (networks := networks_of(row)) is not None:
            held = multiple_of(row, panel.setting.baseline, "parameters")
            size = "" if np.isnan(held) else f"; {held:.2f} times the parameters of {BASELINE}"
            marked.append(f"{row.name} ({networks}{size})")
    return [f"Several networks: {'; '.join(marked)}."] if marked else []


def multiple_of(row: Row, baseline: Row | None, cost: str) -> float:
    """Return the mean of a cost over trials as a multiple of the baseline's; NaN where one of them is not known.

    Parameters
    ----------
    cost : an attribute of `Cost`
    """
    held = float(np.nanmean(row.costs(cost)))
    usual = float("nan") if baseline is None else float(np.nanmean(baseline.costs(cost)))
    return held / usual if usual else float("nan")


def steps_of(row: Row, baseline: Row | None) -> float:
    """Return the optimizer steps of a row as a multiple of the baseline's, over the trials of both; NaN without any."""
    common = common_trials(row, baseline) if baseline else []
    if baseline is None or not common:
        return float("nan")
    own, others = (sum(optimizer_steps(each)[each.trials.index(trial)] for trial in common) for each in (row, baseline))
    return float(own / others) if others else float("nan")


def optimizer_steps(row: Row) -> np.ndarray:
    """Return the optimizer steps of each trial, all stages together, float64 [T]."""
    totals = [sum(stage.steps for stage in record.result.cost.stages) for record in row.records]
    return np.array(totals, dtype=np.float64)


def own_rates(row: Row) -> str:
    """Return the learning rates of a row's stages that are not the protocol's."""
    return _by_stage(row, lambda stage: ", ".join(f"x{rate:g}" for rate in stage.rates if rate != 1))


def own_stops(row: Row) -> str:
    """Return the stop rules of a row's stages that are not the protocol's."""
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
