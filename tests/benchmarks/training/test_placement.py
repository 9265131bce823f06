"""Trials on devices: spread first, then packed, as many as the memory of a GPU takes."""

from dataclasses import replace
from typing import Any

import pytest

from ltbench.benchmarks.training.planning.placement import DeviceMemory, placed, training_memory
from ltbench.benchmarks.training.protocol import Protocol

_TWO = [DeviceMemory("cuda:0", 80), DeviceMemory("cuda:3", 30)]
_CPU = [DeviceMemory("cpu")]


@pytest.mark.parametrize(
    ("devices", "given", "slots"),
    [
        (_CPU, {"jobs": None}, ["cpu"] * 4),
        (_CPU, {"jobs": None, "trials": 3}, ["cpu"] * 3),
        (_CPU, {"jobs": 6}, ["cpu"] * 6),
        (_TWO, {"jobs": 1}, ["cuda:0", "cuda:3"]),
        (_TWO, {"jobs": 2}, ["cuda:0", "cuda:3", "cuda:0", "cuda:3"]),
        (_TWO, {"jobs": 2, "trials": 3}, ["cuda:0", "cuda:3", "cuda:0"]),
        (_TWO, {"jobs": None, "needed": 20}, ["cuda:0", "cuda:3", "cuda:0"]),  # a core a trial
        (_TWO, {"jobs": None, "needed": 20, "cores": 16}, ["cuda:0", "cuda:3", "cuda:0", "cuda:0", "cuda:0"]),
        (_TWO, {"jobs": None, "needed": 500}, ["cuda:0", "cuda:3"]),
        (_TWO, {"jobs": None, "cores": 1}, ["cuda:0", "cuda:3"]),
    ],
)
def test_trials_are_spread_and_packed(devices: Any, given: dict[str, Any], slots: list[str]) -> None:
    assert list(placed(devices, **{"trials": 100, "cores": 4, **given})) == slots


def test_the_memory_of_a_step_follows_network_batch_and_size(tiny_protocol: Protocol) -> None:
    usual = training_memory(tiny_protocol)
    for larger in ({"batch_size": 512}, {"image_size": 64}, {"backbone": "resnet50"}):
        assert training_memory(replace(tiny_protocol, **larger)) > 1.5 * usual
