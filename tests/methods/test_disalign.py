"""DisAlign: what its second stage moves, and its loss."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.benchmarks.training.trial import run_trial
from ltbench.files import read_tensors
from ltbench.methods import Batch, Progress

COUNTS = np.array([10, 400, 5], dtype=np.int64)


def test_the_loss_weighs_rare_classes(batch: Batch) -> None:
    method = method_on_colour("disalign", COUNTS, rho=2.0)
    assert np.allclose(method.class_weights / method.class_weights[2], (5 / COUNTS) ** 2)
    assert np.isclose(method.class_weights.sum(), 3)
    features = method.features(batch.images)
    gate = (0.1 * features.sum(dim=1, keepdim=True)).sigmoid()
    logits = (1 + gate) * method.head(features)
    expected = functional.cross_entropy(logits, batch.targets, method.class_weights.float())
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected)
    even = method_on_colour("disalign", np.array([7, 7, 7]))
    assert torch.equal(even.class_weights, torch.ones(3, dtype=torch.float64))


def test_the_second_stage_moves_the_alignment_alone(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    plain, spec = make_spec("ce", protocol=short), make_spec("disalign", protocol=short, second_share=0.0)
    for each in (plain, spec):
        run_trial(each)
    before, after = (read_tensors(each.folder / "model.pt") for each in (plain, spec))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not torch.equal(after["align.logit_scale"], torch.ones(8)) and after["align.logit_bias"].abs().max() > 0
