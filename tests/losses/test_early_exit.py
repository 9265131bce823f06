"""Early exits: who leaves where, in training and in evaluation, and what is paid on the way."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ltbench.losses import EarlyExitLoss, inference_exits, training_exits


def draw(exits: int, batch: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=4, size=(exits, batch, classes)))
    return logits.requires_grad_(), torch.from_numpy(rng.integers(0, classes, batch))


def expected(logits: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[float, list[int]]:
    total, exits = 0.0, []
    for image, target in enumerate(targets):
        for exit_, scores in enumerate(logits[:, image]):
            shifted = np.exp(scores - scores.max())
            probabilities = shifted / shifted.sum()
            total -= math.log(probabilities[target])
            if exit_ == len(logits) - 1 or (probabilities.argmax() == target and probabilities.max() >= threshold):
                exits.append(exit_)
                break
    return total / len(targets), exits


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 0.9, 0.99, 2.0])
@pytest.mark.parametrize(("exits", "batch", "classes"), [(4, 33, 8), (2, 1, 10), (3, 5, 14), (1, 7, 8)])
def test_agrees_with_the_definition(threshold: float, exits: int, batch: int, classes: int) -> None:
    logits, targets = draw(exits, batch, classes)
    loss = EarlyExitLoss(threshold)(logits, targets)
    value, taken = expected(logits.detach().numpy(), targets.numpy(), threshold)
    assert loss.dtype == torch.float64 and loss.item() == pytest.approx(value, abs=1e-9)
    assert training_exits(logits, targets, threshold).tolist() == taken
    loss.backward()
    gradient = logits.softmax(2) - functional.one_hot(targets, classes)
    paid = torch.arange(exits).unsqueeze(1) <= torch.tensor(taken)
    torch.testing.assert_close(logits.grad, (gradient * paid.unsqueeze(2) / batch).detach(), rtol=0, atol=1e-9)


def test_sure_and_wrong_images_and_extreme_logits() -> None:
    logits = torch.tensor([[[0.0, 9.0]], [[9.0, 0.0]], [[9.0, 0.0]]])
    assert training_exits(logits, torch.tensor([0]), 0.9).tolist() == [1]
    assert inference_exits(logits, 0.9).tolist() == [0]
    assert inference_exits(logits, 1.5).tolist() == [2]
    logits = (torch.tensor([-100.0, 100.0])[torch.randint(2, (4, 9, 8))]).requires_grad_()
    loss = EarlyExitLoss(0.9)(logits, torch.arange(9) % 8)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_a_threshold_below_zero_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        EarlyExitLoss(threshold)


@pytest.mark.parametrize("wrong", [-100, -1, 8])
def test_ids_that_are_no_class_are_refused(wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, _ = draw(3, 2, 8)
    with pytest.raises(ValueError, match="targets must be class ids from 0 to 7"):
        EarlyExitLoss()(logits, torch.tensor([0, wrong]))
    monkeypatch.setattr("ltbench.losses.early_exit.check_class_ids", lambda *_: None)
    with pytest.raises(IndexError, match="out of bounds"):
        EarlyExitLoss()(logits, torch.tensor([0, wrong]))
