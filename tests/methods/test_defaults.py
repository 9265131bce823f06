"""What each method does when nothing is set: hyper-parameters, and the budget and learning rate of every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ltbench import methods
from ltbench.methods import Method, Stage, StageResult, Task, available, create
from ltbench.methods.base import Plateau, Run

COUNTS = np.array([60, 30, 6, 3], dtype=np.int64)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS))
WIDTH, RATE = 96, 3e-4

DEFAULTS: dict[str, dict[str, Any]] = {
    "balanced_softmax": {},
    "cb": {"base": "softmax", "beta": 0.9999, "gamma": 2.0},
    "ce": {},
    "crt": {"budget": 0.2, "images_per_class": 4},
    "curriculumnet": {
        "quantile": 0.6,
        "kernel": "cutoff",
        "middle_weight": 0.5,
        "sparse_weight": 0.5,
        "dense_share": 0.4,
        "middle_share": 0.3,
    },
    "elf": {"threshold": 0.9, "exits": 4},
    "flex": {
        "pretrain": "ssl",
        "ssl_budget": 1.0,
        "ssl_lr": 2e-4,
        "ssl_batch_size": 16,
        "ssl_temperature": 0.07,
        "ssl_queue": 8192,
        "ssl_momentum": 0.999,
        "ssl_dimension": 128,
        "ssl_crop_area": 0.2,
        "ssl_jitter": 0.4,
        "selection": "anchor",
        "anchor_scale": 0.1,
        "anchor_profile": "pareto",
        "warmup": 0.3,
        "query": "mutual_information",
        "query_patience": 0.1,
        "query_fraction": 0.1,
        "query_base": "current",
        "quota": "per_class",
        "query_resets_patience": True,
        "difficulty": "validation",
        "smoothing": "none",
        "mc_passes": 10,
        "dropout": 0.5,
    },
    "focal": {"gamma": 2.0, "detach": False},
    "la_posthoc": {"tau": None},
    "ldam": {"max_margin": 0.5, "scale": 30.0, "drw": True, "drw_start": 0.8, "beta": 0.9999},
    "logit_adjust": {"tau": 1.0},
    "lws": {"budget": 0.2, "images_per_class": 4, "lr_factor": 10.0},
    "mixup": {"alpha": 1.0},
    "oltr": {
        "feature_weight": 0.01,
        "repel_weight": 0.01,
        "repel_margin": 10.0,
        "reachability": 10.0,
        "scale": 16.0,
        "images_per_class": 4,
    },
    "rs": {"scheme": "balanced", "power": 0.0, "images_per_class": 4, "beta": 0.9999},
    "rw": {"scheme": "inverse", "beta": 0.9999},
    "tau_norm": {"tau": None},
}

# Stages at a budget of 100 epochs: name, epochs, learning rate (None: the protocol's), how it stops, whether reported.
ERM = ("erm", 100, None, Plateau(20), False)
TRAIN = [("train", 100, None, Plateau(20), True)]
STAGES: dict[str, list[tuple[Any, ...]]] = {
    **dict.fromkeys(("balanced_softmax", "cb", "elf", "focal", "logit_adjust", "mixup", "rs", "rw"), TRAIN),
    "ce": [("erm", 100, None, Plateau(20), True)],
    "ldam": [("train", 100, None, Plateau(20, after=80), True)],
    "crt": [ERM, ("classifier", 20, None, None, True)],
    "lws": [ERM, ("scale", 20, 10 * RATE, None, True)],
    "tau_norm": [ERM, *((f"tau={number / 10:g}", 0, None, None, True) for number in range(11))],
    "la_posthoc": [ERM, *((f"tau={number / 4:g}", 0, None, None, True) for number in range(9))],
    "curriculumnet": [
        ERM,
        ("dense", 40, None, None, False),
        ("middle", 30, None, None, False),
        ("all", 30, None, Plateau(20), True),
    ],
    "oltr": [ERM, ("memory", 100, None, Plateau(20), True)],
    "flex": [("pretrain", 100, 2e-4, None, False), ("anchors", 100, None, "rule", True)],
}


class Made(Run):
    """A run of the paper's protocol on made-up features; nothing is kept, and no network is asked."""

    labels, class_counts, val_class_counts = LABELS, COUNTS, COUNTS
    epochs, patience, batch_size, lr = 100, 20, 256, RATE

    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        return np.random.default_rng(1).normal(size=(len(LABELS), WIDTH)).astype(np.float32)

    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError

    def mc_probabilities(self, indices: np.ndarray, passes: int, stream: str) -> np.ndarray:
        raise NotImplementedError

    def rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng(2)

    def memo(self, name: str, compute: Callable[[], Any], *, told: bool = True) -> Any:
        return compute()


def method_of(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return create(name, Task(4, COUNTS, 32), timm.create_model("test_resnet", num_classes=0), **options)


def walk(method: Method, run: Run) -> list[Stage]:
    """Return the stages of a run in which nothing is trained."""
    stages, plan = [], method.stages(run)
    stage = next(plan)
    while True:
        stages.append(stage)
        try:
            stage = plan.send(StageResult(stage.name, False, ()))
        except StopIteration:
            return stages


def test_every_method_is_here() -> None:
    folder = Path(methods.__file__).parent
    own = [name for name in available() if (folder / f"{name}.py").exists()]  # another test may have left a plug-in
    assert sorted(DEFAULTS) == sorted(STAGES) == own


@pytest.mark.parametrize("name", DEFAULTS)
def test_hyper_parameters(name: str) -> None:
    assert asdict(method_of(name).config) == DEFAULTS[name]


@pytest.mark.parametrize("name", STAGES)
def test_budgets_and_learning_rates(name: str) -> None:
    stages = walk(method_of(name), Made())
    told = [(stage.name, stage.epochs, stage.lr, stage.stop, stage.select) for stage in stages]
    if name == "flex":
        # Its own rule: test_flex.py.
        told[1] = (*told[1][:3], "rule" if told[1][3].early_stopping == Plateau(20, after=30) else None, told[1][4])
    assert told == STAGES[name]
    assert [stage.batch_size for stage in stages] == [16 if stage.name == "pretrain" else None for stage in stages]
    assert [stage.keep for stage in stages] == ["best" if stage.name == "erm" else "last" for stage in stages]


@pytest.mark.parametrize("name", ["crt", "lws"])
@pytest.mark.parametrize(("budget", "epochs", "expected"), [(0.2, 1, 1), (0.2, 6, 1), (0.2, 30, 6), (0.5, 30, 15)])
def test_the_second_stages_share_of_the_epochs(name: str, budget: float, epochs: int, expected: int) -> None:
    run = Made()
    run.epochs = epochs
    first, second = walk(method_of(name, budget=budget), run)
    assert (first.epochs, second.epochs) == (epochs, expected)


@pytest.mark.parametrize("name", ["crt", "lws"])
def test_what_the_second_stage_holds_still(name: str) -> None:
    method = method_of(name)
    _, second = walk(method, Made())
    frozen = (method.backbone,) if name == "crt" else (method.backbone, method.head)
    assert second.frozen == frozen
    trained = second.params or method.param_groups(RATE)[0]["params"]
    free = [parameter for parameter in trained if not any(parameter is own for m in frozen for own in m.parameters())]
    expected = method.head.parameters() if name == "crt" else [method.scale]
    assert {id(parameter) for parameter in free} == {id(parameter) for parameter in expected}


def test_the_factor_of_the_scales_learning_rate() -> None:
    assert walk(method_of("lws", lr_factor=3.0), Made())[1].lr == pytest.approx(3 * RATE)
