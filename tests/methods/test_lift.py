"""LIFT: a cosine head that starts at the class means, and learns with adjusted logits."""

from typing import Any

import numpy as np
import pytest
import torch
from fake_run import FakeRun, walk
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.methods import Batch, Progress

COUNTS = np.array([3, 5, 1], dtype=np.int64)
LABELS = np.array([1, 0, 1, 1, 2, 0, 1, 0, 1])
FEATURES = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def test_the_head_starts_at_the_directions_of_the_class_means() -> None:
    method, run = method_on_colour("lift", COUNTS), FakeRun(LABELS, FEATURES)
    (stage,) = walk(method, run)
    assert (stage.name, stage.epochs, run.reads) == ("train", 20, 1)
    means = np.stack([FEATURES[label == LABELS].mean(axis=0) for label in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = FEATURES @ means.T / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    found = method.classify(torch.from_numpy(FEATURES)).detach().numpy()
    np.testing.assert_allclose(found, 25 * cosines, rtol=1e-4, atol=1e-4)
    random = method_on_colour("lift", COUNTS, start="random")
    walk(random, FakeRun(LABELS, None))
    assert torch.equal(random.head.weight, method_on_colour("lift", COUNTS).head.weight)


def test_the_loss_is_that_of_adjusted_logits(batch: Batch) -> None:
    method = method_on_colour("lift", COUNTS)
    logits = method.predict(batch.images)
    assert logits.abs().max() <= 25
    shares = torch.from_numpy(COUNTS / COUNTS.sum()).log()
    expected = functional.cross_entropy(logits.double() + shares, batch.targets)
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], expected.float())


def test_features_without_a_direction_are_refused() -> None:
    with pytest.raises(UserError, match="the mean feature of class 0 is 0 and has no direction"):
        walk(method_on_colour("lift", COUNTS), FakeRun(LABELS, np.zeros((9, 4), dtype=np.float32)))


def test_the_means_are_read_once_and_kept(make_spec: Any) -> None:
    spec = make_spec("lift")
    run_trial(spec)
    assert (spec.folder / "journal" / "memo-class_means.json").exists()
