"""ECL: number and optimizer of proxies, class weights over training."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour
from torch.nn import functional

from ltbench.losses import ClassEnhancementLoss
from ltbench.losses.representation.contrastive import enhancement_weights
from ltbench.methods import Batch, EpochReport, Plateau, Progress
from ltbench.methods.ecl import proxy_numbers

COUNTS = np.array([40, 1, 5, 9], dtype=np.int64)
F1 = (0.9, 0.0, float("nan"), 0.5)


def method(**options: Any) -> Any:
    ecl = method_on_colour("ecl", counts=COUNTS, **options)
    stage = next(ecl.stages(SimpleNamespace(epochs=10, early_stopping=lambda after: Plateau(3, after))))
    assert stage.stop == Plateau(3, 4)  # epochs 1 to 4 of 10 are those before half of training
    return ecl


def test_early_stopping_counts_from_the_epoch_of_full_frequency() -> None:
    for start, epochs in ((0.5, 10), (0.5, 1), (0.55, 100), (0.14, 50), (0.3, 7)):
        ecl = method_on_colour("ecl", counts=COUNTS, f1_start=start, frequency_start=0.1)
        stage = next(ecl.stages(SimpleNamespace(epochs=epochs, early_stopping=lambda after: Plateau(3, after))))
        first = next(epoch for epoch in range(epochs) if (epoch + 1) / epochs >= start - 1e-12)
        assert stage.stop == Plateau(3, first)


def batch(seed: int) -> Batch:
    views = torch.randn(2, 6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch(tuple(views), torch.tensor([3, 2, 1, 3, 2, 2]), np.arange(6))  # without the class of one proxy


def test_rare_classes_have_more_proxies() -> None:
    pareto = np.array([5000, 2590, 1342, 695, 360, 187, 97, 51])
    assert proxy_numbers(pareto).tolist() == [1, 2, 2, 2, 3, 4, 7, 11]
    assert proxy_numbers(np.array([5, 5])).tolist() == [1, 1]
    assert method()._used_proxies().shape == (1 + 6 + 2 + 2, 128)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
def test_class_weights_over_training(share: float) -> None:
    counts, f1 = torch.tensor([40.0, 1, 5, 9]).double(), torch.tensor([0.9, 0.01, 0.3, 0.5]).double()
    frequency = [4 / count / sum(1 / other for other in counts) for count in counts]
    floored = [max(each, 0.05) for each in f1.tolist()]
    hardness = [4 / each / sum(1 / other for other in floored) for each in floored]
    if share <= 0.2:
        wanted = [1.0] * 4
    elif share <= 0.5:
        wanted = [float(each) ** ((share - 0.2) / 0.3) for each in frequency]
    else:
        wanted = [each ** ((share - 0.5) / 0.5) for each in hardness]
    found = enhancement_weights(counts, f1, share)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)
    same = torch.full((4,), 7.0)
    torch.testing.assert_close(enhancement_weights(same, same / 10, share), torch.ones(4))


def test_the_loss_is_of_both_parts() -> None:
    given, ecl = batch(1), method(alpha=1.5, beta=0.5)
    ecl.class_f1.copy_(torch.tensor([0.9, 0.2, 0.3, 0.5]))
    found = ecl.loss(given, Progress(7, 10))["loss"]
    weights = enhancement_weights(ecl.counts, ecl.class_f1, 0.8)
    classification = functional.cross_entropy(ecl.predict(given.images), given.targets, weight=weights)
    vectors = ecl.projector(torch.cat([ecl.features(view) for view in given.views]))
    contrast = ClassEnhancementLoss(0.1)(*vectors.chunk(2), given.targets, ecl._used_proxies(), ecl.proxy_classes)
    torch.testing.assert_close(found, 1.5 * classification + 0.5 * contrast)
    assert found.isfinite()


def test_proxies_step_once_an_epoch_by_the_sum_of_gradients() -> None:
    ecl, before = method(), method().proxies.clone()
    slow = torch.nn.Parameter(before.clone())
    optimizer = torch.optim.SGD([slow], lr=0.002, momentum=0.9, weight_decay=1e-4)
    for epoch in range(3):
        for seed in (1, 2):
            kept = ecl.proxies.clone()
            ecl.loss(batch(seed), Progress(epoch, 10))["loss"].backward()
            assert torch.equal(ecl.proxies, kept)
        assert ecl.proxy_gradient.abs().sum() > 0
        slow.grad = ecl.proxy_gradient.clone()
        optimizer.param_groups[0]["lr"] = 0.002 * (1 + np.cos(np.pi * epoch / 10)) / 2
        optimizer.step()
        ecl.on_epoch_end(EpochReport("train", epoch, {}, 1, 1, 0.0, val_f1=F1))
        torch.testing.assert_close(ecl.proxies, slow.detach())
    assert ecl.class_f1.tolist() == pytest.approx([0.9, 0.0, 1.0, 0.5])
    assert "proxies" not in dict(ecl.named_parameters()) and not ecl.proxies.requires_grad
