"""Heads in float64: values and gradients against formulas by hand, and nothing on the way that rounds to float32.

Losses under autocast: nothing but the backbone rounds to half precision.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import timm
import torch
from mean_colour import method_on_colour
from torch import Tensor, nn

from ltbench.methods import Batch, Method, Progress, Task, create, registry
from ltbench.methods.ldam import NormedLinear

COUNTS = np.array([40, 10, 5, 20], dtype=np.int64)
PRIORS = COUNTS / COUNTS.sum()
WIDTH, BATCH = 6, 5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


FEATURES, OUTER = normal(BATCH, WIDTH, seed=1), normal(BATCH, 4, seed=2)


def method_of(name: str, **options: Any) -> Method:
    return method_on_colour(name, COUNTS, num_features=WIDTH, **options).double()


def check(head: Any, parameters: Sequence[Tensor], logits: np.ndarray, gradients: Sequence[np.ndarray]) -> None:
    """Compare the logits of FEATURES, and the gradients of features and parameters where OUTER comes back."""
    features = FEATURES.clone().requires_grad_()
    result = head(features)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.detach().numpy(), logits, rtol=0, atol=1e-12)
    result.backward(OUTER)
    for leaf, gradient in zip((features, *parameters), gradients, strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=0, atol=1e-12)


def arrays_of(head: nn.Linear) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return FEATURES.numpy(), OUTER.numpy(), head.weight.detach().numpy(), head.bias.detach().numpy()


@pytest.mark.parametrize(("name", "tau"), [("ce", 0.0), ("la_posthoc", 0.3), ("la_posthoc", 1.7)])
def test_linear_head_and_its_adjustment(name: str, tau: float) -> None:
    method = method_of(name, **({"tau": tau} if name == "la_posthoc" else {}))
    f, outer, weight, bias = arrays_of(method.head)
    logits = f @ weight.T + bias - tau * np.log(PRIORS)
    gradients = outer @ weight, outer.T @ f, outer.sum(axis=0)
    check(method.classify, [method.head.weight, method.head.bias], logits, gradients)


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_tau_norm(tau: float) -> None:
    method = method_of("tau_norm", tau=tau)
    f, outer, weight, _ = arrays_of(method.head)
    lengths = np.sqrt((weight**2).sum(axis=1, keepdims=True))
    logits = f @ (weight / lengths**tau).T
    along = (outer * (f @ weight.T)).sum(axis=0)[:, None]
    of_weight = outer.T @ f / lengths**tau - tau * along * weight / lengths ** (tau + 2)
    check(method.classify, [method.head.weight], logits, [outer @ (weight / lengths**tau), of_weight])


def test_weight_scaling() -> None:
    method = method_of("lws")
    with torch.no_grad():
        method.scale.copy_(normal(4, seed=3))
    f, outer, weight, bias = arrays_of(method.head)
    scale, plain = method.scale.detach().numpy(), f @ weight.T + bias
    scaled = outer * scale
    gradients = scaled @ weight, (outer * plain).sum(axis=0), scaled.T @ f, scaled.sum(axis=0)
    check(method.classify, [method.scale, method.head.weight, method.head.bias], scale * plain, gradients)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_normalised_head(scale: float) -> None:
    method = method_of("ldam", scale=scale)
    head = NormedLinear(WIDTH, 4).double() if scale == 1 else method.head
    with torch.no_grad():
        head.weight.copy_(normal(WIDTH, 4, seed=4))
    f, outer, weight = FEATURES.numpy(), OUTER.numpy(), head.weight.detach().numpy()
    sizes, lengths = np.linalg.norm(f, axis=1, keepdims=True), np.linalg.norm(weight, axis=0, keepdims=True)
    unit, vectors = f / sizes, weight / lengths
    cosines = unit @ vectors
    of_features = (outer @ vectors.T - (outer * cosines).sum(axis=1, keepdims=True) * unit) / sizes
    of_weight = (unit.T @ outer - (outer * cosines).sum(axis=0) * vectors) / lengths
    gradients = [scale * of_features, scale * of_weight]
    check(head if scale == 1 else method.classify, [head.weight], scale * cosines, gradients)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("ce", "elf", "flex", "ldam", "lws", "oltr", "tau_norm")),
        *((name, {}) for name in ("causal", "disalign", "mislas", "ncm", "weight_balancing")),
        ("elf", {"threshold": 0.0}),  # out at the first exit
    ],
    ids=str,
)
def test_no_image_is_rounded_on_its_way(name: str, options: dict[str, float]) -> None:
    """A change of 1e-7 of the images is lost in float32; here twice the change gives twice the difference."""
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0)
    method = create(name, Task(4, COUNTS, 32), backbone, **options).double().eval()
    images, direction = normal(2, 3, 32, 32, seed=5), normal(2, 3, 32, 32, seed=6)
    with torch.no_grad():
        if name == "oltr":
            method.centroids.copy_(normal(4, 96, seed=7))
        plain, one, two = (method.predict(images + step * 1e-7 * direction) for step in (0, 1, 2))
    assert plain.dtype == torch.float64 and (one != plain).all()
    torch.testing.assert_close(two - plain, 2 * (one - plain), rtol=1e-2, atol=1e-12)


@pytest.mark.parametrize("name", ["la_posthoc", "rw", "tau_norm"])
def test_constants_are_kept_in_float64(name: str) -> None:
    method = method_on_colour(name, COUNTS, num_features=WIDTH)
    assert all(value.dtype == torch.float64 for _, value in method.named_buffers())
    assert method.classify(FEATURES.float()).dtype == torch.float32


class Quarters(nn.Module):
    """Means of the quarters of images, weighted: autocast leaves it in float32."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.weight


_LOSSES = [
    *((name, {}) for name in registry.available() if name not in ("bbn", "elf", "oltr", "ride", "sade")),
    *((name, {"own_stages": 0}) for name in ("ride", "sade")),
    ("gpaco", {"momentum": 0.9}),
    ("proco", {"head": "cosine"}),
    ("sam", {"scope": "tail"}),
]


@pytest.mark.parametrize(("name", "options"), _LOSSES, ids=str)
def test_what_follows_the_backbone_is_the_same_under_autocast(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = create(name, Task(4, COUNTS, 8, new_backbone=Quarters), Quarters(), **options)
    half = copy.deepcopy(plain)
    views, targets = tuple(torch.randn(3, 6, 3, 8, 8)), torch.tensor([1, 0, 0, 2, 3, 0])
    batch = Batch(views, targets, np.arange(6), Batch(views[::-1], targets.flip(0), np.arange(6)))
    for method, autocast in ((plain, False), (half, True)):
        torch.manual_seed(1)
        mixed = method.transform(batch, np.random.default_rng(1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = method.loss(mixed, Progress(9, 10))["loss"]
        loss.backward()
    for one, other in zip(plain.parameters(), half.parameters(), strict=True):
        assert one.grad is other.grad or torch.equal(one.grad, other.grad)
    for one, other in zip(plain.buffers(), half.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
