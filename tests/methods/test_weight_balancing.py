"""Weight balancing: decoupled decay, the bound on lengths and when it holds, neutral settings."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mean_colour import method_on_colour

from ltbench.benchmarks.training.trial import run_trial
from ltbench.files import read_tensors
from ltbench.methods import EpochReport, Stage

COUNTS = np.array([10, 400, 5], dtype=np.int64)


def test_decay_shrinks_weights_after_each_step() -> None:
    method = method_on_colour("weight_balancing", COUNTS, decay=0.5, classifier_decay=2.0)
    for name, decay in (("train", 0.5), ("classifier", 2.0)):
        weights = [torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(2)]
        optimizer = method.optimizer([{"params": [weights[0]], "lr": 0.1}], Stage(name, 1))
        plain = method.task.new_optimizer([{"params": [weights[1]], "lr": 0.1}])
        for weight, own in zip(weights, (optimizer, plain), strict=True):
            weight.grad = torch.tensor([0.0, 1.0, -3.0])
            own.step()
        torch.testing.assert_close(weights[0], (1 - 0.1 * decay) * weights[1])


def test_class_vectors_are_projected_after_each_epoch_of_the_second_stage() -> None:
    method = method_on_colour("weight_balancing", COUNTS)
    weight, features = method.head.weight, torch.randn(5, 4)
    before, lengths = weight.detach().clone(), weight.detach().norm(dim=1)
    method.delta.fill_(lengths.median())
    for stage, bounded in (("train", False), ("classifier", True)):
        validated = method.eval().classify(features)
        method.on_epoch_end(EpochReport(stage, 0, {}, 1, 1, 1.0))
        assert torch.equal(weight, before) != bounded
    assert weight.norm(dim=1).max() <= lengths.median() * 1.0001
    torch.testing.assert_close(method.classify(features), validated)
    torch.testing.assert_close(method.train().classify(features), validated)


def test_without_decay_and_bound_the_first_stage_is_ce(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    plain = make_spec("ce", protocol=short)
    spec = make_spec(
        "weight_balancing", protocol=short, decay=0.0, classifier_decay=0.0, norm_range=1e9, second_share=0.0
    )
    for each in (plain, spec):
        run_trial(each)
    before, after = (read_tensors(each.folder / "model.pt") for each in (plain, spec))
    differs = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert differs == {"head.weight", "head.bias"}


def test_the_bound_comes_from_the_first_stage(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    spec = make_spec("weight_balancing", protocol=short, norm_range=0.0)
    run_trial(spec)
    kept = read_tensors(spec.folder / "model.pt")
    assert 0 < kept["delta"] < math.inf
    assert (kept["head.weight"].norm(dim=1) > kept["delta"] / 2).all()
