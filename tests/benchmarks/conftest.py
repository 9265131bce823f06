"""Records written by hand, as trials write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written import write_record

from ltbench.benchmarks.analysis.records import Record


@pytest.fixture(scope="session")
def add_record() -> Callable[..., Record]:
    """Return `write_record`."""
    return write_record


@pytest.fixture(scope="session")
def add_trials() -> Callable[..., None]:
    """Return a function that writes the first trials of a method, alike but for their number."""

    def add(results: Path, method: str, trials: int, accuracy: float, **others: Any) -> None:
        for trial in range(trials):
            write_record(results, method, trial, accuracy, **others)

    return add
