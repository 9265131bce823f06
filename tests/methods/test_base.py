"""The contract: stop rules, stages, and the default method, which is cross-entropy."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import timm
import torch
from fake_run import FakeRun
from mean_colour import method_on_colour
from torch import nn

from ltbench.methods import HOOKS, Batch, EpochReport, Method, Plateau, Progress, Stage, StageResult, Task, create

COUNTS = np.array([40, 10, 5], dtype=np.int64)


def reports(*scores: float) -> list[EpochReport]:
    return [EpochReport("train", epoch, {}, 1, 1, 0.0, val_recall=(score, score)) for epoch, score in enumerate(scores)]


@pytest.fixture
def method() -> Method:
    return method_on_colour("ce", COUNTS)


def test_plateau_counts_epochs_that_are_not_strictly_above() -> None:
    for scores, waited in (((), 0), ((0.0,), 0), ((0.5, 0.4, 0.6), 0), ((0.5, 0.4), 1), ((0.5, 0.5), 1)):
        assert Plateau(3).waited(reports(*scores)) == waited and not Plateau(3)(reports(*scores))
    assert Plateau(3).waited(reports(0.5, 0.4, 0.6, 0.6)) == 1 and not Plateau(3)(reports(0.5, 0.4, 0.6, 0.6))
    assert Plateau(3).waited(reports(0.5, 0.4, 0.3, 0.45)) == 3 and Plateau(3)(reports(0.5, 0.4, 0.3, 0.45))


def test_plateau_keeps_its_first_epochs_and_its_score_to_beat() -> None:
    rule = Plateau(2, after=3)
    scores = (0.9, 0.1, 0.1, 0.5, 0.6)
    assert [rule.waited(reports(*scores[:count])) for count in range(6)] == [0, 0, 0, 0, 1, 2]
    assert [rule(reports(*scores[:count])) for count in range(6)] == [False] * 5 + [True]
    rule = Plateau(2, best=0.7)
    assert rule.waited(reports(0.5, 0.7)) == 2 and rule(reports(0.5, 0.7))
    assert rule.waited(reports(0.5, 0.71)) == 0
    assert FakeRun(np.repeat(np.arange(3), COUNTS), epochs=12).early_stopping() == Plateau(5)
    assert FakeRun(np.repeat(np.arange(3), COUNTS), epochs=12).early_stopping(after=2, best=0.3) == Plateau(5, 2, 0.3)


def test_scores_of_reports_and_stages() -> None:
    report = EpochReport("train", 0, {}, 1, 1, 0.0, val_recall=(0.5, float("nan"), 1.0))
    assert report.score == 0.75
    report = EpochReport("train", 0, {}, 1, 1, 0.0)
    assert report.score == -math.inf and Plateau(1)([report])
    result = StageResult("train", True, tuple(reports(0.2, 0.8, 0.5)))
    assert (result.epochs, result.best) == (3, 0.8)
    assert result.val_recall.dtype == np.float64 and result.val_recall.tolist() == [0.5, 0.5]
    assert StageResult("train", False, ()).best == -math.inf


@pytest.mark.parametrize(
    "fields",
    [
        {"validate": False},
        {"validate": False, "select": False, "keep": "best"},
        {"validate": False, "select": False, "epochs": 0},
        {"recipe": {"kind": "ssl"}},
        {"predict": torch.zeros_like},
    ],
)
def test_stages_that_contradict_themselves(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="stage 'odd'"):
        Stage("odd", **{"epochs": 3, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"epochs": 0},
        {"validate": False, "select": False},
        {"recipe": {"kind": "ssl"}, "select": False, "validate": False},
        {"recipe": {"kind": "erm"}, "keep": "best"},
        {"predict": torch.zeros_like, "select": False},
        {"keep": "best", "select": False},
    ],
)
def test_stages_that_make_sense(fields: dict[str, Any]) -> None:
    stage = Stage("fine", **{"epochs": 3, **fields})
    with pytest.raises(FrozenInstanceError):
        stage.epochs = 4


def test_default_loss_is_the_mean_cross_entropy(method: Method, batch: Batch) -> None:
    logits = method.predict(batch.images)
    loss = method.loss(batch, Progress(0, 1))["loss"]
    expected = -logits.double().log_softmax(1)[torch.arange(6), batch.targets].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    soft = Batch(batch.views, nn.functional.one_hot(batch.targets, 3).float(), batch.indices)
    torch.testing.assert_close(method.loss(soft, Progress(0, 1))["loss"], method.loss(batch, Progress(0, 1))["loss"])


def test_defaults_are_one_stage_of_a_linear_head(method: Method, batch: Batch) -> None:
    assert method.head.weight.shape == (3, 4) and method.head.bias.shape == (3,)
    groups = method.param_groups(3e-4)
    assert len(groups) == 1 and groups[0]["lr"] == 3e-4
    assert {id(parameter) for parameter in groups[0]["params"]} == {id(each) for each in method.parameters()}
    assert method.transform(batch, np.random.default_rng(0)) is batch
    optimizer = method.optimizer(method.param_groups(3e-4), Stage("train", 1))
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]["lr"] == 3e-4
    logits, details = method.inspect(batch.images)
    assert details == {} and torch.equal(logits, method.predict(batch.images))
    stages = list(method.stages(FakeRun(np.repeat(np.arange(3), COUNTS), epochs=12)))
    assert len(stages) == 1
    assert (stages[0].epochs, stages[0].stop, stages[0].select) == (12, Plateau(5), True)


def test_logits_are_single_precision_under_autocast(method: Method, batch: Batch) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, logits = method.features(batch.images), method.predict(batch.images)
    assert features.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, method.classify(features))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([4, 0, 2], r"every class needs at least one training image, got class_counts \[4, 0, 2\]"),
        ([4, -1, 2], "at least one training image"),
        ([4, 2], r"whole numbers of shape \[3\], got int64 of shape \[2\]"),
        ([[4, 1, 2]], r"of shape \[1, 3\]"),
        ([4.0, 1.0, 2.0], "got float64"),
        ([True, True, True], "got bool"),
    ],
)
def test_a_task_refuses_counts(counts: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(3, np.array(counts), 8)


@pytest.mark.parametrize("kind", [list, np.int32, torch.tensor])
def test_a_task_keeps_counts_as_an_array(kind: Any) -> None:
    counts = Task(3, kind(COUNTS), 8).class_counts
    assert isinstance(counts, np.ndarray) and counts.dtype == np.int64 and counts.tolist() == COUNTS.tolist()


def test_hooks_are_all_that_a_method_may_override() -> None:
    own = {name for name in vars(Method) if not name.startswith("_") and callable(getattr(Method, name))}
    assert set(HOOKS) == own - {"Config"} and len(HOOKS) == len(set(HOOKS))
    own = dict.fromkeys((*HOOKS, "_los", "temperature", "forward"), lambda self, *given: None)
    assert issubclass(type("Mine", (Method,), own), Method)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "test_resnet", "test_convnext", "test_vit"])
def test_heads_fit_backbones_whose_features_are_not_the_channels_of_the_last_map(backbone: str) -> None:
    network = timm.create_model(backbone, num_classes=0)
    side = network.pretrained_cfg["input_size"][-1]
    for name in ("ce", "ldam"):
        logits = create(name, Task(3, COUNTS, side), network).eval().predict(torch.zeros(1, 3, side, side))
        assert logits.shape == (1, 3)


@pytest.mark.parametrize(("name", "hook"), [("los", "loss"), ("stage", "stages"), ("on_epoch_ends", "on_epoch_end")])
def test_a_misspelt_hook_is_refused(name: str, hook: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.{name} is no hook; did you mean '{hook}'"):
        type("Mine", (Method,), {name: lambda self, *given: None})
