"""Records written by hand, as trials write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from written import write_record

from ltbench.benchmarks.analysis.records import Record


@pytest.fixture(scope="session")
def add_record() -> Callable[..., Record]:
    """Return `write_record`."""
    return write_record
