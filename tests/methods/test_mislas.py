"""MiSLAS: a first stage of mixup, and which parts the second one moves, at which rates."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour

from ltbench.benchmarks.training.trial import run_trial
from ltbench.files import read_tensors
from ltbench.methods import Batch, Progress

COUNTS = np.array([10, 400, 5], dtype=np.int64)


def test_before_the_second_stage_it_is_mixup(batch: Batch) -> None:
    ours, mixup = method_on_colour("mislas", COUNTS), method_on_colour("mixup", COUNTS)
    losses = [
        each.loss(each.transform(batch, np.random.default_rng(3)), Progress(0, 2))["loss"] for each in (ours, mixup)
    ]
    assert torch.equal(*losses)


@pytest.mark.parametrize("shift", [False, True])
def test_the_second_stage_moves_head_and_scales_alone(shift: bool, make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    spec = make_spec("mislas", protocol=short, shift_bn=shift, second_share=0.0)
    run_trial(spec)
    before = make_spec("mixup", protocol=short)
    run_trial(before)
    first, second = (read_tensors(each.folder / "model.pt") for each in (before, spec))
    changed = {name for name, value in first.items() if not torch.equal(value, second[name])}
    statistics = {name for name in first if "running" in name or "num_batches" in name}
    assert changed == {"head.weight", "head.bias"} | (statistics if shift else set())
    scales = (second["scale"] - 1).abs()
    assert 0.9 * spec.protocol.lr < scales.max() < 100 * spec.protocol.lr
