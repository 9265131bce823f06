"""Losses that draw numbers for each logit (SEQL, GCL): against loops with given numbers, and what is drawn."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ltbench.losses import GCLLoss, SEQLLoss

COUNTS = (360, 51, 5000, 97, 1)
every = pytest.mark.parametrize("loss_of", [lambda c=COUNTS: SEQLLoss(c, 0.02), lambda c=COUNTS: GCLLoss(c)])


def batch_of(size: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, 5, dtype=torch.float64, generator=generator) * 2 - 1, torch.arange(size) % 4


def agree(loss: Callable[..., Tensor], expected: Callable[[Tensor], Tensor], drawn: Tensor) -> None:
    logits, targets = batch_of(len(drawn))
    one, other = (logits.clone().requires_grad_() for _ in range(2))
    value, by_hand = loss(one, targets, drawn), expected(other)
    value.backward()
    by_hand.backward()
    torch.testing.assert_close(value, by_hand, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("threshold", "rare"), [(0.02, (1, 3, 4)), (0.5, (0, 1, 3, 4)), (0.0, ())])
def test_equalization_leaves_out_what_was_drawn(threshold: float, rare: tuple[int, ...]) -> None:
    drawn = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    targets = batch_of()[1]

    def by_hand(logits: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for row, y, left in zip(logits, targets.tolist(), drawn.tolist(), strict=True):
            kept = [row[c].exp() for c in range(5) if c == y or not (left[c] and c in rare)]
            total = total - (row[y].exp() / sum(kept)).log()
        return total / len(logits)

    for kind in (drawn, drawn.float()):
        agree(SEQLLoss(COUNTS, threshold), by_hand, kind)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_clouds_lower_every_logit_and_the_margin_the_own(gamma: float) -> None:
    drawn = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = batch_of()[1]

    def by_hand(logits: Tensor) -> Tensor:
        values = []
        for row, y, eps in zip(logits, targets.tolist(), drawn.tolist(), strict=True):
            z = []
            for c, count in enumerate(COUNTS):
                cloud = (math.log(5000) - math.log(count)) / (math.log(5000) - math.log(1))
                z.append(20 * (row[c] - 0.5 * abs(max(-1.0, min(1.0, eps[c]))) * cloud - (0.1 if c == y else 0)))
            p = z[y].exp() / sum(each.exp() for each in z)
            values.append(-((1 - p.detach()) ** gamma) * p.log())
        return sum(values) / len(values)

    loss = GCLLoss(COUNTS, 0.5, 0.1, 20.0, gamma)
    assert drawn.abs().max() > 1
    agree(loss, by_hand, drawn)
    cosines = batch_of()[0]
    soft = functional.cross_entropy(GCLLoss(COUNTS).clouded(cosines, drawn), targets)
    torch.testing.assert_close(soft, GCLLoss(COUNTS)(cosines, targets, drawn))


def test_neutral_settings_are_cross_entropy() -> None:
    logits, targets = batch_of()
    plain = functional.cross_entropy(logits, targets)
    assert torch.equal(SEQLLoss(COUNTS, 0.02, 0.0)(logits, targets), plain)
    assert torch.equal(SEQLLoss([9] * 5, 0.2)(logits, targets), plain)
    torch.testing.assert_close(GCLLoss([9] * 5, scale=1.0)(logits, targets), plain)
    torch.testing.assert_close(GCLLoss(COUNTS, 0.0, scale=1.0)(logits, targets), plain)


@every
def test_draws_do_not_depend_on_ids_and_follow_the_generator(loss_of: Callable[..., torch.nn.Module]) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    logits, targets = batch_of(40)
    values = []
    for counts, columns, ids in (
        (COUNTS, logits, targets),
        ([COUNTS[each] for each in order], logits[:, order], order.argsort()[targets]),
        (COUNTS, logits.float(), targets),
    ):
        torch.manual_seed(3)
        values.append(loss_of(counts)(columns, ids).double())
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)
    assert values[0].item() == pytest.approx(values[2].item(), rel=1e-5)
    assert loss_of()(logits, targets) != loss_of()(logits, targets)


def test_numbers_have_their_distribution() -> None:
    torch.manual_seed(0)
    rows = torch.zeros(20_000, 5, dtype=torch.float64)
    lowered = -GCLLoss(COUNTS, 1.0, scale=1.0).clouded(rows)
    assert torch.equal(lowered[:, 2], rows[:, 2]) and lowered.max() <= 1
    assert lowered[:, 4].mean() == pytest.approx(math.sqrt(2 / math.pi) / 3, abs=0.01)
    share = -SEQLLoss((1, 1000), 0.1, 0.9)(torch.zeros(20_000, 2), torch.ones(20_000, dtype=torch.int64))
    assert share / -math.log(2) == pytest.approx(0.1, abs=0.01)


@every
def test_odd_batches_are_finite_or_refused(loss_of: Callable[..., torch.nn.Module]) -> None:
    for own, others in ((100.0, -100.0), (-100.0, 100.0)):
        logits = torch.where(functional.one_hot(torch.arange(5), 5).bool(), own, others).requires_grad_()
        loss = loss_of()(logits, torch.arange(5))
        loss.backward()
        assert loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    logits, targets = batch_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss_of()(logits.bfloat16(), targets).dtype == torch.float32
    for wrong in ((logits[:, :4], targets), (logits, targets - 1), (logits, targets, torch.zeros(7, 4))):
        with pytest.raises(ValueError):
            loss_of()(*wrong)


def test_refuses_options() -> None:
    for options in ((-0.1,), (math.nan,), (0.1, -0.1), (0.1, 1.1)):
        with pytest.raises(ValueError):
            SEQLLoss(COUNTS, *options)
    for options in ((-0.5,), (0.5, -0.1), (0.5, 0.1, 0.0), (0.5, 0.1, 20.0, math.inf)):
        with pytest.raises(ValueError):
            GCLLoss(COUNTS, *options)


@pytest.mark.parametrize(
    "loss", [SEQLLoss(COUNTS, 0.02, gamma=0.0), SEQLLoss(COUNTS, 0.0), GCLLoss(COUNTS, 0.0), GCLLoss((9, 9, 9, 9, 9))]
)
def test_nothing_is_drawn_where_no_number_matters(loss: SEQLLoss | GCLLoss) -> None:
    logits, targets = batch_of()
    before = torch.get_rng_state()
    value = loss(logits, targets)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(value, loss(logits, targets, torch.zeros(7, 5)))
