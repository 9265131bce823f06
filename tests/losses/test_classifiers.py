"""Heads, projection and nearest class means against loops and by what must not change anything."""

import math

import pytest
import torch
from torch import nn

from ltbench.losses import (
    CausalNormClassifier,
    DisAlignHead,
    class_centroids,
    max_norm_projection,
    nearest_class_mean_scores,
)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(head: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(head.double().parameters()):
            parameter.copy_(rand(*parameter.shape, seed=number + 10))
    return head


def test_disalign() -> None:
    logits, features, start = rand(4, 3), rand(4, 5, seed=1), DisAlignHead(5, 3).double()
    gate = torch.tensor([1 / (1 + math.exp(-0.1 * math.fsum(row))) for row in features.tolist()])
    torch.testing.assert_close(start(logits, features), (1 + gate.unsqueeze(1)) * logits, rtol=0, atol=1e-6)
    head = filled(start)
    v, b = head.confidence.weight[0].tolist(), head.confidence.bias.item()
    for i, row in enumerate(head(logits, features).tolist()):
        gate = 1 / (1 + math.exp(-sum(w * f for w, f in zip(v, features[i].tolist(), strict=True)) - b))
        for c, value in enumerate(row):
            own = logits[i, c].item()
            expected = own + gate * head.logit_scale[c].item() * own + gate * head.logit_bias[c].item()
            assert value == pytest.approx(expected, abs=1e-12)
    leaves = logits.requires_grad_(), features.requires_grad_()
    assert torch.autograd.gradcheck(head, leaves)


def slow_causal(head: CausalNormClassifier, feature: list[float], alpha: float) -> list[float]:
    size, logits = len(feature) // head.num_heads, []
    for weight in head.weight.tolist():
        total = 0.0
        for start in range(0, len(feature), size):
            f, w, m = (each[start : start + size] for each in (feature, weight, head.mean.tolist()))
            f = [value / math.hypot(*f) for value in f]
            m = [value / (math.hypot(*m) or 1.0) for value in m]
            along = math.fsum(a * b for a, b in zip(f, m, strict=True))
            kept = [a - alpha * along * b for a, b in zip(f, m, strict=True)]
            total += math.fsum(a * b for a, b in zip(kept, w, strict=True)) / (math.hypot(*w) + head.gamma)
        logits.append(head.tau / head.num_heads * total)
    return logits


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_causal_norm(heads: int) -> None:
    head, features = filled(CausalNormClassifier(6, 4, heads, tau=10.0, gamma=0.1, alpha=0.7)), rand(5, 6)
    assert torch.equal(head.eval()(features), head.train()(features))  # no mean yet
    head.update(features[:3])
    head.update(features[3:])
    expected = 0.9 * features[:3].mean(0) + features[3:].mean(0)
    torch.testing.assert_close(head.mean, expected, rtol=0, atol=1e-12)
    for training, alpha in ((True, 0.0), (False, 0.7)):
        logits = head.train(training)(features)
        slow = torch.tensor([slow_causal(head, row, alpha) for row in features.tolist()], dtype=torch.float64)
        torch.testing.assert_close(logits, slow, rtol=0, atol=1e-9)
        assert torch.autograd.gradcheck(head, features.clone().requires_grad_())
    torch.testing.assert_close(head(3 * features), logits)  # the length of a feature does not count
    with pytest.raises(ValueError):
        CausalNormClassifier(6, 4, 4)


def test_max_norm_projection() -> None:
    weight = rand(5, 3)
    lengths = weight.norm(dim=1)
    projected = max_norm_projection(weight, lengths.median())
    torch.testing.assert_close(projected.norm(dim=1), lengths.clamp(max=lengths.median().item()), rtol=0, atol=1e-12)
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
