"""Schemes of pre-training beside momentum contrast: their losses by hand, what follows, what is drawn and kept."""

import io
import math
import typing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltbench.benchmarks.training.protocol import INITS
from ltbench.benchmarks.training.trial import run_trial
from ltbench.losses import BarlowTwinsLoss, InfoNCELoss
from ltbench.methods import Batch, Progress, registry
from ltbench.methods._contrast import MomentumContrast
from ltbench.methods._self_supervision import SCHEMES

OTHERS = tuple(name for name in SCHEMES if name)
QUEUE = {"queue_size": 8, "momentum": 0.9, "temperature": 0.2}


class Tiny(nn.Module):
    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def made(name: str, **options: Any) -> tuple[Tiny, Any]:
    torch.manual_seed(0)
    backbone, queue = Tiny(), QUEUE if issubclass(SCHEMES[name], MomentumContrast) else {}
    return backbone, SCHEMES[name](backbone, dimension=3, **queue, **options)


def batch(seed: int, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.randn(size, 3, 2, 2, generator=generator) for _ in range(2))
    return Batch(views, torch.arange(size) % 2, 100 * seed + np.arange(size))


def step(built: Any, backbone: Tiny, seed: int, progress: Progress = Progress(0, 4), size: int = 4) -> Tensor:  # noqa: B008
    return built.loss_on(backbone)(batch(seed, size), progress)["loss"]


def test_names_are_those_of_the_protocol_and_of_flex() -> None:
    names = {"ssl", *(f"ssl:{name}" for name in OTHERS)}
    options = typing.get_type_hints(registry.get("flex").Config)["pretrain"]
    assert set(INITS) - {"scratch", "ce"} == names == set(typing.get_args(options)) - {"ce", "none"}


def test_losses_are_their_formulas() -> None:
    def cosine(p: Tensor, z: Tensor) -> float:
        return sum(float(a @ b / (a.norm() * b.norm())) for a, b in zip(p, z, strict=True)) / len(p)

    for name in ("simclr", "barlow", "simsiam", "byol"):
        backbone, built = made(name)
        loss = step(built, backbone, 1).item()
        u, other = (built.projector(backbone(view)).detach() for view in batch(1).views)
        if name in ("simclr", "barlow"):
            expected = (InfoNCELoss(0.2) if name == "simclr" else BarlowTwinsLoss())(u, other).item()
        else:  # the moving average is still the encoder itself
            both = (cosine(built.predictor(u).detach(), other) + cosine(built.predictor(other).detach(), u)) / 2
            expected = -both if name == "simsiam" else 2 - 2 * both
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", SCHEMES)
def test_views_may_be_of_half_precision(name: str) -> None:
    backbone, built = made(name)
    given = batch(1)
    half = replace(given, views=tuple(view.bfloat16() for view in given.views))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = built.loss_on(backbone)(half, Progress(0, 4))["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and backbone.layer.weight.grad.isfinite().all()


def test_simsiam_stops_gradients_and_byol_follows() -> None:
    backbone, built = made("simsiam")
    u, other = (built.projector(backbone(view)) for view in batch(1).views)
    for each in (u, other):
        each.retain_grad()
    built.compare(u, other.detach(), *built.targets(u, other, backbone, batch(1), Progress(0, 1))).backward()
    p = built.predictor(u.detach().requires_grad_())
    assert u.grad is not None and other.grad is None and p.requires_grad
    for epoch, momentum in ((0, 0.99), (2, 0.995), (3, 1 - 0.01 * (1 + math.cos(0.75 * math.pi)) / 2)):
        backbone, built = made("byol")
        before = [each.clone() for each in built.target_projector.parameters()]
        with torch.no_grad():
            for parameter in built.projector.parameters():
                parameter.add_(torch.randn(parameter.shape))
        step(built, backbone, 1, Progress(epoch, 4)).backward()
        for mine, start, online in zip(
            built.target_projector.parameters(), before, built.projector.parameters(), strict=True
        ):
            torch.testing.assert_close(mine, momentum * start + (1 - momentum) * online)
            assert mine.grad is None and not mine.requires_grad


def test_kcl_takes_some_keys_of_the_class_and_none_of_the_image() -> None:
    backbone, plain = made("")
    other_backbone, none = made("kcl", positives=0)
    for seed in range(4):
        assert torch.equal(step(plain, backbone, seed), step(none, other_backbone, seed))
    backbone, built = made("kcl", positives=2)
    for seed in (1, 2):
        step(built, backbone, seed)
    assert built.labels.tolist() == [0, 1] * 4
    same = built.shown.unsqueeze(0) == torch.tensor([[100], [101], [999]])
    targets = torch.tensor([0, 1, 0])
    seen = torch.stack([built._positives(targets, same) for _ in range(60)])
    assert (seen.sum(2) == 2).all() and not (seen & same).any()
    possible = (targets.unsqueeze(1) == built.labels) & ~same
    assert torch.equal(seen.any(0), possible)
    assert not built._positives(torch.tensor([5]), same[:1]).any()
    assert built._positives(targets, same[:, :1]).sum() == 1  # of one key, the third image's


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_goes_on_where_it_stopped_and_gradients_flow(name: str) -> None:
    backbone, built = made(name)
    for seed in range(3):
        step(built, backbone, seed, size=2 + seed)
    kept = io.BytesIO()
    torch.save(built.state_dict(), kept)
    kept.seek(0)
    other_backbone, restored = made(name)
    other_backbone.load_state_dict(backbone.state_dict())
    restored.load_state_dict(torch.load(kept, weights_only=True))
    for seed in (7, 8):
        values = []
        for pair in ((built, backbone), (restored, other_backbone)):
            torch.manual_seed(seed)
            values.append(step(*pair, seed))
        assert torch.equal(*values) and torch.isfinite(values[0])
    values[0].backward()
    assert all(each.grad.abs().sum() > 0 for each in backbone.parameters())
    assert not {id(each) for each in backbone.parameters()} & {id(each) for each in built.parameters()}


def test_flex_and_every_encoder_can_begin_with_them(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    for method, protocol, options, stage in (
        ("flex", short, {"pretrain": "ssl:kcl", "ssl_batch_size": 16, "query": "none"}, "pretrain"),
        ("ce", replace(short, init="ssl:byol"), {}, "initial"),
    ):
        spec = make_spec(method, protocol=protocol, **options)
        assert run_trial(spec) == "done"
        assert f'"{stage}"' in (spec.folder / "metrics.jsonl").read_text().splitlines()[0]


def test_two_equal_views_are_no_loss_for_byol_with_a_predictor_that_is_the_identity() -> None:
    backbone, built = made("byol")
    built.predictor = nn.Identity()
    view = batch(1).views[0]
    loss = built.loss_on(backbone)(replace(batch(1), views=(view, view)), Progress(0, 1))["loss"]
    assert loss.item() == pytest.approx(0, abs=1e-6)
