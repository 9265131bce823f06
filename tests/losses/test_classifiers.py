"""Heads, projection and nearest class means against loops and by what must not change anything."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from ltbench.losses import (
    CausalNormClassifier,
    DisAlignHead,
    class_centroids,
    max_norm_projection,
    nearest_class_mean_scores,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(head: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(head.double().parameters()):
            parameter.copy_(rand(*parameter.shape, seed=number + 10))
    return head


def same_with_gradients(found: Tensor, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    weights = rand(*found.shape, seed=3)
    gradients = [torch.autograd.grad((weights * each).sum(), inputs, retain_graph=True) for each in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_disalign() -> None:
    logits, features, start = rand(4, 3).requires_grad_(), rand(4, 5, seed=1).requires_grad_(), DisAlignHead(5, 3)
    gate = torch.tensor([1 / (1 + math.exp(-0.1 * math.fsum(row))) for row in features.tolist()])
    torch.testing.assert_close(start.double()(logits, features), (1 + gate.unsqueeze(1)) * logits, rtol=0, atol=1e-6)
    head, rows = filled(start), []
    for own, feature in zip(logits, features, strict=True):
        v, b = head.confidence.weight[0], head.confidence.bias[0]
        gate = 1 / (1 + (-sum(w * f for w, f in zip(v, feature, strict=True)) - b).exp())
        scales = zip(own, head.logit_scale, head.logit_bias, strict=True)
        rows.append(torch.stack([z + gate * s * z + gate * t for z, s, t in scales]))
    same_with_gradients(head(logits, features), torch.stack(rows), [logits, features, *head.parameters()])


def slow_causal(head: CausalNormClassifier, feature: Tensor, alpha: float) -> Tensor:
    size, logits = len(feature) // head.num_heads, []
    for weight in head.weight:
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(feature), size):
            f, w, m = (each[start : start + size] for each in (feature, weight, head.mean))
            f, m = f / sum(f**2).sqrt(), m / (sum(m**2).sqrt() or 1.0)
            along = sum(f * m)
            total = total + sum((f - alpha * along * m) * w) / (sum(w**2).sqrt() + head.gamma)
        logits.append(head.tau / head.num_heads * total)
    return torch.stack(logits)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_causal_norm(heads: int) -> None:
    head, features = filled(CausalNormClassifier(6, 4, heads, tau=10.0, gamma=0.1, alpha=0.7)), rand(5, 6)
    assert torch.equal(head.eval()(features), head.train()(features))  # no mean yet
    head.update(features[:3])
    head.update(features[3:])
    expected = 0.9 * features[:3].mean(0) + features[3:].mean(0)
    torch.testing.assert_close(head.mean, expected, rtol=0, atol=1e-12)
    for training, alpha in ((True, 0.0), (False, 0.7)):
        leaf = features.clone().requires_grad_()
        logits, slow = head.train(training)(leaf), torch.stack([slow_causal(head, row, alpha) for row in leaf])
        same_with_gradients(logits, slow, [leaf, head.weight])
    torch.testing.assert_close(head(3 * features), logits)  # the length of a feature does not count
    with pytest.raises(ValueError):
        CausalNormClassifier(6, 4, 4)


def test_max_norm_projection() -> None:
    weight = rand(5, 3)
    lengths = weight.norm(dim=1)
    projected, bound = max_norm_projection(weight, lengths.median()), lengths.median().item()
    slow = [[value * min(1.0, bound / math.hypot(*row)) for value in row] for row in weight.tolist()]
    torch.testing.assert_close(projected, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)
    short = lengths <= lengths.median()
    assert torch.equal(projected[short], weight[short])
    torch.testing.assert_close(max_norm_projection(projected, lengths.median()), projected, rtol=0, atol=1e-15)
    assert torch.equal(max_norm_projection(weight, math.inf), weight)
    torch.testing.assert_close(max_norm_projection(weight, lengths.min()).norm(dim=1), lengths.min().expand(5))
    assert torch.equal(max_norm_projection(torch.zeros(2, 3), 0.0), torch.zeros(2, 3))


@pytest.mark.parametrize("kind", ["un", "l2n", "cl2n"])
def test_nearest_class_means(kind: str) -> None:
    train, labels, features = rand(7, 4) + 1, torch.tensor([2, 0, 2, 0, 3, 3, 3]), rand(3, 4, seed=1)
    centroids, centre = class_centroids(train, labels, 4, kind)

    def changed(row: list[float]) -> list[float]:
        row = [a - b * (kind == "cl2n") for a, b in zip(row, train.mean(0).tolist(), strict=True)]
        return row if kind == "un" else [value / math.hypot(*row) for value in row]

    for metric in ("l2", "cos"):
        scores = nearest_class_mean_scores(features, centroids, centre, kind, metric)
        assert (scores[:, 1] == -math.inf).all()  # no image of class 1
        for label in (0, 2, 3):
            own = [changed(row) for row, y in zip(train.tolist(), labels.tolist(), strict=True) if y == label]
            mean = [math.fsum(column) / len(own) for column in zip(*own, strict=True)]
            for feature, score in zip(features.tolist(), scores[:, label].tolist(), strict=True):
                pairs = list(zip(changed(feature), mean, strict=True))
                expected = sum(a * b for a, b in pairs) / 4 if metric == "cos" else -sum((a - b) ** 2 for a, b in pairs)
                assert score == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError):
        nearest_class_mean_scores(features, centroids, centre, kind, "l1")
