"""Numbers of rows, and how tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ltbench.benchmarks.analysis.rendering import OPEN, Cell, fixed
from ltbench.benchmarks.analysis.rows import ACCURACY, Row, comparable
from ltbench.benchmarks.analysis.statistics.comparisons import Comparison


def lines_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the lines of a table of numbers, by the names of its columns."""
    return [{str(name): value for name, value in line.items()} for line in frame.to_dict("records")]


def accuracy_numbers(row: Row, best: Comparison, baseline: Comparison) -> dict[str, Any]:
    """Return the numbers of a row's accuracy: interval, difference to the baseline, p-values."""
    return {
        **statistics({ACCURACY: row.values(ACCURACY)}),
        **{"low": row.accuracy.low, "high": row.accuracy.high},
        **difference_numbers(best, baseline),
    }


def difference_numbers(best: Comparison, baseline: Comparison) -> dict[str, Any]:
    """Return the numbers of a row's differences to the best and to the baseline."""
    return {
        **{"delta": baseline.delta, "delta_low": baseline.low, "delta_high": baseline.high},
        **{"p_baseline": baseline.p_value, "p_best": best.p_value, "best": best.delta == 0},
        **{"open_best": best.open, "open_baseline": baseline.open},
    }


def statistics(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return mean and, as `<name>_sd`, standard deviation of each quantity; of one trial there is none."""
    numbers: dict[str, float] = {}
    for name, own in values.items():
        numbers[name] = float(own.mean())
        numbers[f"{name}_sd"] = float(own.std(ddof=1)) if len(own) > 1 else float("nan")
    return numbers


def accuracy_cell(numbers: Mapping[str, Any]) -> Cell:
    """Return an accuracy as it is shown: bold where it is the best, ? where it may be the best itself."""
    return Cell(percent(numbers, ACCURACY) + OPEN * bool(numbers["open_best"]), bool(numbers["best"]))


def delta_cell(numbers: Mapping[str, Any]) -> Cell:
    """Return the difference to the baseline as it is shown, ? where its sign is open."""
    return Cell(signed(numbers["delta"]) + OPEN * bool(numbers["open_baseline"]))


def same(mean: float, other: float) -> bool:
    """Return whether two means are equal but for rounding; NaN is not."""
    return bool(comparable(mean) == comparable(other))


def percent(numbers: Mapping[str, Any], name: str) -> str:
    """Return mean ± standard deviation in percent."""
    return mean_sd(numbers, name, 100, 2)


def mean_sd(numbers: Mapping[str, Any], name: str, scale: float, digits: int) -> str:
    """Return mean ± standard deviation; of one trial the mean alone."""
    mean, sd = scale * numbers[name], scale * numbers[f"{name}_sd"]
    if np.isnan(mean):
        return "n/a"
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def amount(numbers: Mapping[str, Any], name: str) -> str:
    """Return mean ± standard deviation of a count, rounded to ones."""
    mean, sd = numbers[name], numbers[f"{name}_sd"]
    if np.isnan(mean):
        return "n/a"
    return f"{mean:.0f}" if np.isnan(sd) or sd == 0 else f"{mean:.0f} ± {sd:.0f}"


def range_text(low: float, high: float) -> str:
    """Return an interval in percent."""
    return "n/a" if np.isnan(low) or np.isnan(high) else f"[{fixed(100 * low, 1)}, {fixed(100 * high, 1)}]"


def signed(difference: float) -> str:
    """Return a difference in percentage points, with its sign; one that is rounded to 0 has none."""
    return "n/a" if np.isnan(difference) else fixed(100 * difference, 2, "+")


def percent_interval(numbers: Mapping[str, Any], name: str) -> str:
    """Return a metric with its interval."""
    if np.isnan(numbers[name]):
        return "n/a"
    return f"{percent(numbers, name)} {range_text(numbers[f'{name}_low'], numbers[f'{name}_high'])}"
