"""How cores are shared among trials."""

from __future__ import annotations

from typing import Any

import pytest

from ltbench.benchmarks.executor import share_threads


@pytest.mark.parametrize(
    ("trials", "jobs", "cores", "threads"),
    [
        (5, 1, 2, [2, 2, 2, 2, 2]),
        (5, 2, 2, [1, 1, 1, 1, 2]),
        (4, 2, 2, [1, 1, 1, 1]),
        (5, 5, 16, [3, 3, 3, 3, 3]),
        (5, 4, 16, [4, 4, 4, 4, 16]),
        (6, 4, 16, [4, 4, 4, 4, 8, 8]),
        (1, 2, 2, [2]),
        (3, 8, 2, [1, 1, 1]),
    ],
)
def test_a_last_incomplete_round_shares_all_cores(
    trials: int, jobs: int, cores: int, threads: list[int], make_spec: Any
) -> None:
    specs = [make_spec(trial=number) for number in range(trials)]
    assert [spec.threads for spec in share_threads(specs, jobs, cores)] == threads
