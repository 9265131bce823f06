"""How many trials fit on nodes, and the share of a GPU that each gets."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ltbench.benchmarks.executors.packing import GpuShares, Need
from ltbench.benchmarks.training.trial_spec import TrialSpec


@pytest.mark.parametrize(
    ("need", "slots"),
    [(Need(1, 0.0, 0), 12), (Need(3, 0.0, 0), 3), (Need(1, 0.3333, 0), 6), (Need(2, 0.6, 0), 2), (Need(1, 0.0, 40), 3)],
)
def test_slots(need: Need, slots: int) -> None:
    assert need.slots([{"CPU": 8.0, "GPU": 2.0, "memory": 100.0}, {"CPU": 4.0, "memory": 70.0}]) == slots


def test_shares(make_spec: Callable[..., TrialSpec]) -> None:
    cpu = make_spec()
    first, second, third = (replace(make_spec(trial=trial), device="cuda") for trial in range(3))
    assert GpuShares(None).take(cpu) == 0.0 and GpuShares(3).take(first) == 0.3333
    shares = GpuShares(None)
    assert (shares.take(first), shares.take(second)) == (1.0, None)
    shares.ended(first)  # it failed: another is measured
    assert (shares.take(second), shares.take(third)) == (1.0, None)
    shares.ended(second, 0.4)
    assert shares.take(third) == 0.46
    assert shares.raised(third, 0.46) and shares.take(third) == 0.92
    assert not shares.raised(third, 0.92) and not shares.raised(first, 1.0)
