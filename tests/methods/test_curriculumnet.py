"""CurriculumNet: its stages, budgets, subsets and weighted loss."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fake_run import FakeRun, walk
from torch import nn
from torch.nn import functional

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.methods import Batch, Plateau, Progress, Stage, Task, create
from ltbench.samplers import curriculum_subsets

COUNTS = np.array([40, 12, 5], dtype=np.int64)
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(3), COUNTS))
FEATURES = np.random.default_rng(2).normal(size=(57, 4)).astype(np.float32)
SUBSETS = curriculum_subsets(FEATURES, LABELS)


class Tiny(nn.Module):
    """Mean colour, normalised, then a linear map."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.layer = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.norm(images).mean((2, 3)))


def make(**options: Any) -> Any:
    torch.manual_seed(0)
    return create("curriculumnet", Task(3, COUNTS, 8), Tiny(), **options)


def batch_of(indices: np.ndarray) -> Batch:
    images = torch.randn(len(indices), 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return Batch((images,), torch.from_numpy(LABELS[indices]), indices)


def test_plain_training_then_nested_subsets() -> None:
    erm, *curriculum = walk(make(), FakeRun(LABELS, FEATURES))
    assert (erm.name, erm.keep, erm.select) == ("train", "best", False) and erm.recipe is not None
    assert [stage.name for stage in curriculum] == ["dense", "middle", "all"]
    assert [stage.select for stage in curriculum] == [False, False, True]
    assert [stage.stop for stage in curriculum] == [None, None, Plateau(5)]
    for number, stage in enumerate(curriculum):
        assert stage.indices.dtype == np.int64
        assert stage.indices.tolist() == [index for index in range(57) if SUBSETS[index] <= number]
        assert set(LABELS[stage.indices].tolist()) == {0, 1, 2}
    assert len(curriculum[0].indices) < len(curriculum[1].indices) < len(curriculum[2].indices) == 57


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, [1]),
        (2, [1, 1]),
        (3, [1, 1, 1]),
        (4, [2, 1, 1]),
        (6, [2, 2, 2]),
        (10, [4, 3, 3]),
        (30, [12, 9, 9]),
        (100, [40, 30, 30]),
    ],
)
def test_the_budget_is_split(epochs: int, expected: list[int]) -> None:
    erm, *curriculum = walk(make(), FakeRun(LABELS, FEATURES, epochs=epochs))
    assert erm.epochs == epochs and [stage.epochs for stage in curriculum] == expected
    assert curriculum[-1].name == "all" and len(curriculum[-1].indices) == 57


@pytest.mark.parametrize("shares", [(0.01, 0.01), (0.01, 0.98), (0.97, 0.02), (0.5, 0.3), (1 / 3, 1 / 3)])
def test_no_budget_is_exceeded_and_no_stage_is_empty(shares: tuple[float, float]) -> None:
    method = make(dense_share=shares[0], middle_share=shares[1])
    for epochs in range(1, 120):
        budgets = method._budgets(epochs)
        assert sum(budgets) == epochs and budgets[2] >= 1
        assert min(budgets) >= (1 if epochs >= 3 else 0)


def test_shares_that_leave_nothing_are_refused(make_spec: Any) -> None:
    with pytest.raises(UserError, match="sum must be below 1"):
        make_spec("curriculumnet", dense_share=0.6, middle_share=0.4)


def test_subsets_are_computed_once_and_told() -> None:
    run = FakeRun(LABELS, FEATURES)
    first = walk(make(), run)
    again = walk(make(), run)
    assert run.reads == 1
    for one, other in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
    told = json.loads(run.memos["curriculum"])
    assert told["subsets"] == SUBSETS.tolist()
    assert np.array(told["sizes"]).shape == (3, 3) and np.sum(told["sizes"], axis=0).tolist() == COUNTS.tolist()
    assert [row[2] for row in told["sizes"]] == [5, 0, 0]


def test_the_curriculum_starts_from_the_initial_weights_and_carries_them_over() -> None:
    method = make()
    initial = {name: value.clone() for name, value in method.state_dict().items()}
    seen = []

    def disturb(stage: Stage) -> None:
        seen.append({name: value.clone() for name, value in method.state_dict().items()})
        with torch.no_grad():
            for value in method.state_dict().values():
                value.add_(1)

    walk(method, FakeRun(LABELS, FEATURES), disturb)
    for number, state in enumerate(seen):
        carried = max(0, number - 1)
        for name, value in state.items():
            torch.testing.assert_close(value, initial[name] + carried)


def test_loss_is_the_mean_by_image_weight() -> None:
    method = make(middle_weight=0.5, sparse_weight=0.25)
    batch = batch_of(np.random.default_rng(4).permutation(57)[:24])
    each = functional.cross_entropy(method.predict(batch.images), batch.targets, reduction="none")
    torch.testing.assert_close(method.loss(batch, Progress(0, 1))["loss"], each.mean())
    walk(method, FakeRun(LABELS, FEATURES))
    assert "image_weights" not in method.state_dict()
    by_hand = [{0: 1.0, 1: 0.5, 2: 0.25}[subset] for subset in SUBSETS[batch.indices].tolist()]
    assert len(set(by_hand)) == 3
    # The walk put BatchNorm's statistics back, so the logits are those of a first pass.
    each = functional.cross_entropy(method.predict(batch.images), batch.targets, reduction="none").tolist()
    expected = sum(weight * value for weight, value in zip(by_hand, each, strict=True)) / sum(by_hand)
    assert method.loss(batch, Progress(0, 1))["loss"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("epochs", "curriculum"), [(1, ["all"]), (2, ["dense", "all"]), (5, ["dense", "middle", "all"])]
)
def test_story_of_a_trial(epochs: int, curriculum: list[str], make_spec: Any, tiny_protocol: Protocol) -> None:
    spec = make_spec("curriculumnet", protocol=replace(tiny_protocol, epochs=epochs))
    run_trial(spec)
    result = json.loads((spec.folder / "result.json").read_text())
    assert np.sum(result["story"]["curriculum"]["sizes"], axis=0).tolist() == result["class_counts"]
    assert [stage["name"] for stage in result["cost"]["stages"]] == ["train", *curriculum]
    assert result["selection"]["stage"] == "all"
    assert sum(stage["epochs"] for stage in result["cost"]["stages"][1:]) <= epochs
