"""The protocol's optimizers and learning-rate schedules."""

import math

import pytest
import torch

from ltbench.benchmarks.training.protocol import protocol_for
from ltbench.benchmarks.training.stages.optimizers import new_optimizer, schedule_of, set_rates


def test_schedules_by_their_formula() -> None:
    constant, cosine = (schedule_of(protocol_for("quick", schedule=name)) for name in ("constant", "cosine"))
    warm = schedule_of(protocol_for("quick", schedule="cosine", lr_warmup=0.2))
    assert {constant(done) for done in (0.0, 0.3, 0.99)} == {1.0}
    assert [cosine(done) for done in (0.0, 0.5)] == pytest.approx([1.0, 0.5])
    assert cosine(0.25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert [warm(done) for done in (0.05, 0.1, 0.2, 0.6)] == pytest.approx([0.25, 0.5, 1.0, 0.5])


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers_take_the_protocols_decay_and_the_groups_rates(name: str, kind: type) -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.2, "weight_decay": 0.0}]
    optimizer = new_optimizer(protocol_for("quick", optimizer=name, weight_decay=0.3), groups)
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    set_rates(optimizer, [0.1, 0.2], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]
    assert name != "sgd" or optimizer.param_groups[0]["momentum"] == 0.9
