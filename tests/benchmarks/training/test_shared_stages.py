"""Shared stages: whatever a method overrides, no other method gets its numbers, and it gets nobody else's."""

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ltbench.benchmarks.training.stages.hooks import describe, describe_hooks
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.errors import UserError
from ltbench.methods import Method, Stage, registry
from ltbench.methods._erm import erm_stage


def in_order(self: Any, pool: Any, progress: Any, rng: np.random.Generator) -> np.ndarray:
    return np.arange(pool.length) % len(pool.labels)


def negative(self: Any, batch: Any, rng: np.random.Generator) -> Any:
    return replace(batch, views=tuple(-view for view in batch.views))


def fast_sgd(self: Any, groups: Any, stage: Stage) -> torch.optim.Optimizer:
    return torch.optim.SGD([{**group, "lr": 100 * group["lr"]} for group in groups])


def flat_loss(self: Any, batch: Any, progress: Any) -> Any:
    return {"loss": 0.1 * self.loss_function(self.predict(batch.images), batch.targets)}


def last_class(self: Any, images: torch.Tensor) -> torch.Tensor:
    return Method.classify(self, Method.features(self, images)).flip(1)


def forget(self: Any, report: Any) -> None:
    nn.init.zeros_(self.head.weight)


HOOKS: dict[str, Callable[..., Any]] = {
    "sampler": in_order,
    "transform": negative,
    "optimizer": fast_sgd,
    "criterion": lambda self: nn.CrossEntropyLoss(label_smoothing=0.5),
    "loss": flat_loss,
    "features": lambda self, images: 3 * Method.features(self, images),
    "classify": lambda self, features: Method.classify(self, features).flip(1),
    "predict": last_class,
    "param_groups": lambda self, lr: [{"params": list(self.parameters()), "lr": 10 * lr}],
    "on_epoch_end": forget,
}
LEFT = ("sampler", "transform", "optimizer")  # what the shared plain training leaves to the base class
FIELDS = {
    **{name: HOOKS[name] for name in ("sampler", "transform", "optimizer", "loss", "predict")},
    "partner": in_order,
}


def method_of(change: Callable[[Any, Stage], Stage], select: bool = False, **hooks: Any) -> type[Method]:
    """Return a method that begins with the shared plain training, changed, and offers what comes of it."""

    def stages(self: Any, run: Any) -> Iterator[Stage]:
        yield change(self, erm_stage(self, run, select=select))
        if not select:
            yield Stage("offer", 0)

    return type("Plugged", (Method,), {**hooks, "stages": stages})


def as_it_is(method: Any, stage: Stage) -> Stage:
    return stage


@pytest.fixture(scope="module")
def trial(spec_under: Any, tiny_protocol: Any, numbers_of: Any) -> Callable[[str, Path], Any]:
    """Return a function that runs a trial of few steps of a method in a folder and returns its numbers."""

    def run(name: str, out: Path) -> Any:
        spec = spec_under(out, name, protocol=replace(tiny_protocol, epochs=2, batch_size=64))
        run_trial(spec)
        return numbers_of(spec)

    return run


@pytest.fixture(scope="module")
def plain(trial: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a folder in which `ce` alone was trained, and its numbers."""
    folder = tmp_path_factory.mktemp("plain") / "results"
    return folder, trial("ce", folder)


@pytest.fixture
def in_both_orders(trial: Any, plain: Any, tmp_path: Path) -> Callable[[], None]:
    """Return a function that checks that `ce` and `plugged` have the same numbers whichever is trained first."""

    def check() -> None:
        alone = trial("plugged", tmp_path / "plugged first")
        assert trial("ce", tmp_path / "plugged first") == plain[1]
        shutil.copytree(plain[0], tmp_path / "ce first")
        assert trial("plugged", tmp_path / "ce first") == alone

    return check


@pytest.mark.parametrize("hook", LEFT)
def test_a_hook_that_the_stage_leaves_to_a_method_that_overrides_it_is_refused(
    hook: str, registered: Any, trial: Any, plain: Any, tmp_path: Path
) -> None:
    registered("plugged", method_of(as_it_is, **{hook: HOOKS[hook]}))
    for _ in range(2):  # also where the stage is there
        with pytest.raises(UserError, match=rf"shared stage 'train' would use {hook} of plugged.*Stage\({hook}="):
            trial("plugged", tmp_path)
        assert trial("ce", tmp_path) == plain[1]


def test_a_shared_stage_that_is_reported_hands_on_all_that_it_trains(
    registered: Any, trial: Any, tmp_path: Path
) -> None:
    registered("plugged", method_of(lambda _, stage: replace(stage, produces=("backbone",)), select=True))
    with pytest.raises(UserError, match=r"trains head\.weight, which it does not produce"):
        trial("plugged", tmp_path)


def test_the_code_of_a_plugin_is_that_of_its_registration(
    registered: Any, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be edited, or a further one imported, after the class was registered: the row does not know of it."""
    registered("plugged", method_of(as_it_is))
    spec = make_spec("plugged")
    described = []
    for digest in ("a" * 64, "a" * 64, "b" * 64):
        monkeypatch.setitem(registry._digests, "plugged", digest)
        counts = np.asarray(spec.data.class_counts)
        method = build_method(registry.get("plugged"), registry.get("plugged").Config(), spec.protocol, counts, 0)
        described.append(describe_hooks(method, Stage("train", 1, recipe={}, select=False))["owner"])
    assert described[0] == described[1] != described[2]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_shared_stage_that_is_reported_goes_with_no_hook(
    hook: str, registered: Any, trial: Any, tmp_path: Path
) -> None:
    registered("plugged", method_of(as_it_is, select=True, **{hook: HOOKS[hook]}))
    with pytest.raises(UserError, match=rf"shared stage 'train' is reported .*, and plugged overrides {hook}"):
        trial("plugged", tmp_path)


@pytest.mark.parametrize("hook", [name for name in HOOKS if name not in LEFT])
def test_hooks_that_the_stage_gives_itself_do_not_reach_it(hook: str, registered: Any, in_both_orders: Any) -> None:
    registered("plugged", method_of(as_it_is, **{hook: HOOKS[hook]}))
    in_both_orders()


@pytest.mark.parametrize("field", [*FIELDS, "schedule", "stop", "frozen", "params"])
def test_a_shared_stage_that_was_changed_is_another_one(field: str, registered: Any, in_both_orders: Any) -> None:
    def change(method: Any, stage: Stage) -> Stage:
        values = {
            "schedule": lambda done: 0.1,
            "stop": lambda reports: True,
            "frozen": (method.backbone,),
            "params": list(method.head.parameters()),
        }
        return replace(stage, **{field: values[field] if field in values else FIELDS[field].__get__(method)})

    registered("plugged", method_of(change))
    in_both_orders()


def still(self: Any) -> None:
    Method.build(self)
    self.backbone.requires_grad_(False)


def louder(self: Any) -> None:
    Method.build(self)
    self.backbone.register_forward_hook(lambda module, given, result: 3 * result)


def frozen_norms(self: Any, mode: bool = True) -> Any:
    Method.train(self, mode)
    self.backbone.eval()
    return self


def other_optimizer(self: Any) -> None:
    Method.build(self)
    object.__setattr__(self.task, "new_optimizer", lambda groups: torch.optim.SGD(groups))


def other_activation(self: Any) -> None:
    Method.build(self)
    self.backbone.layer1[0].act2 = nn.Tanh()


@pytest.mark.parametrize(
    "change",
    [
        {"build": still},
        {"build": louder},
        {"train": frozen_norms},
        {"build": other_optimizer},
        {"build": other_activation},
    ],
    ids=["frozen backbone", "forward hook", "norms in eval mode", "optimizer of the task", "activation"],
)
@pytest.mark.parametrize("select", [False, True])
def test_what_no_description_sees_is_not_shared(
    change: dict[str, Any], select: bool, registered: Any, in_both_orders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged = method_of(as_it_is, select=select, **change)
    if change.get("build") is not other_optimizer and not select:  # as if it were one of the package
        plugged.__module__ = "ltbench.methods.plugged"
        monkeypatch.setitem(sys.modules, plugged.__module__, ModuleType(plugged.__module__))
    registered("plugged", plugged)
    in_both_orders()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
        (lambda: _adding(1), lambda: _adding(2)),
        (lambda: _adding(np.zeros(2)), lambda: _adding(np.ones(2))),
        (lambda: nn.Linear(2, 2).forward, lambda: nn.Linear(2, 2).forward),
    ],
    ids=["code", "closure", "array", "weights"],
)
def test_descriptions_see_code_and_values(one: Callable[[], Any], other: Callable[[], Any]) -> None:
    first, second = one(), other()
    assert describe(first) == describe(first) != describe(second)


def _adding(value: Any) -> Callable[[Any], Any]:
    return lambda x: x + value
