"""Whether a method depends on the order of its classes: its loss, its logits, its stages. For `methods.checks`.

Two methods are compared, the second with permuted class ids: what the first does with a class, the second must do with
the class in its new place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal
from ltbench.benchmarks.training.method_run import TrialRun
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.backbones import ForwardCounter
from ltbench.benchmarks.training.stages.hooks import StageHooks
from ltbench.benchmarks.training.stages.optimizers import schedule_of
from ltbench.methods.base import Method
from ltbench.methods.contract import Contract, ContractError
from ltbench.methods.stages import Batch, EpochReport, Pool, Progress, SamplerHook, Stage, StageResult

PLACE = torch.tensor([4, 2, 6, 0, 3, 1, 5])
"""Where a class goes."""

_BATCH, _VALIDATION = 14, 28
_MOST_STAGES = 12  # of a method that goes on while validation rises, as it does here
_DRAWS, _SHARE = 40, 0.05  # epochs that a sampler is asked for, and how far shares of classes may differ by chance
_CHOICE = 0.15  # share of a class's images by which chosen ones may differ: ties, and draws from a random stream
_FIELDS = {"name", "epochs", "views", "augmentation", "lr", "batch_size", "keep", "validate", "select", "produces"}


def check_permutation(first: Method, second: Method, random: set[str], protocol: Protocol, folder: Path) -> None:
    """Check that two methods differ by the names of their classes alone.

    Parameters
    ----------
    first, second : the second with permuted classes and weights
    random : names of their weights that are drawn at random
    folder : an empty one

    Raises
    ------
    ContractError
    """
    _compare_losses(first, second, [(first.loss, first.transform), (second.loss, second.transform)], "the loss")
    with torch.no_grad():
        logits, permuted = (each.eval().predict(images_of(each, 3)) for each in (first, second))
    if not torch.allclose(permuted[:, PLACE], logits, rtol=1e-3, atol=1e-4):
        raise ContractError(f"{first.name}: logits depend on the order of the classes")
    sides = [_Side(method, protocol, folder / str(number)) for number, method in enumerate((first, second))]
    for number in range(_MOST_STAGES):
        stages = [side.next_stage(number) for side in sides]
        if stages == [None, None]:
            return
        move(first, second, random)
        _compare_stages(sides, stages)
        for side in sides:
            side.end_stage(number)


def images_of(method: Method, count: int) -> Tensor:
    """Return made-up images of the method's size."""
    size = method.task.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def terms_of(
    method: Method, targets: Tensor, loss: Any = None, transform: Any = None, epoch: int = 0, views: int = 3
) -> dict[str, Any]:
    """Return the logged terms of a batch, everything random alike in each call.

    The batch has a partner, and more views than one, for methods whose stages ask for them.

    Parameters
    ----------
    loss, transform : hooks; None: the method's
    views : of each image
    """
    torch.manual_seed(1)
    images, indices = images_of(method, len(targets)), np.arange(len(targets))
    seen = tuple(images.roll(number, 3) for number in range(views))
    partner = Batch(tuple(view.flip(0) for view in seen), targets.flip(0), indices[::-1].copy())
    given = Batch(seen, targets, indices, partner)
    contract = Contract.of(method)
    batch = contract.batch((transform or method.transform)(given, np.random.default_rng(1)), given)
    return dict(contract.terms((loss or method.loss)(batch, Progress(epoch, 2))))


def tensor_pairs(first: Method, second: Method) -> dict[str, tuple[Tensor, Tensor]]:
    """Return parameters and buffers of two methods, by name."""
    others = {**dict(second.named_parameters()), **dict(second.named_buffers())}
    return {name: (one, others[name]) for name, one in (*first.named_parameters(), *first.named_buffers())}


def move(first: Method, second: Method, random: set[str]) -> None:
    """Give the second method the first one's random weights, in the places of their classes.

    Only those that are equal in both, as drawing them leaves them; what depends on the classes is moved already.
    """
    with torch.no_grad():
        for name, (one, other) in tensor_pairs(first, second).items():
            if name in random and torch.equal(one, other):
                other.copy_(_moved(one))


def _moved(values: Tensor) -> Tensor:
    for dimension, size in enumerate(values.shape):
        if size == len(PLACE):
            values = values.index_select(dimension, PLACE.argsort())
    return values


class _Part:
    """Stands for the images of a part of a split."""

    def __init__(self, labels: np.ndarray, size: int) -> None:
        self.labels = labels
        draws = torch.Generator().manual_seed(len(labels))
        self._pixels = torch.randint(0, 256, (len(labels), 3, size, size), generator=draws, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, indices: np.ndarray) -> Tensor:
        """Return pixels: int64 [B] positions to uint8 [B, 3, S, S]."""
        return self._pixels[torch.from_numpy(np.asarray(indices))]


class _Side:
    """One of the two methods in its trial, of which no stage is trained."""

    def __init__(self, method: Method, protocol: Protocol, folder: Path) -> None:
        self.method, self.stage = method, None
        self._augmentation = asdict(protocol.augmentation)
        self.schedule = schedule_of(protocol)
        # Images of a class lie in the same rows of both sides.
        order = PLACE.numpy() if folder.name == "1" else np.arange(len(PLACE))
        counts = method.task.class_counts[order]
        self.order, size = order, method.task.image_size
        labels = np.repeat(order, counts)[np.random.default_rng(0).permutation(int(counts.sum()))]
        train, val = _Part(labels, size), _Part(np.resize(order, _VALIDATION), size)
        inference = Inference(method, protocol, torch.device("cpu"))
        parts: tuple[Any, ...] = (train, val, len(order), inference, Journal(folder), ForwardCounter())
        self.labels, self._result = labels, None
        self._plan = Contract.of(method).plan(method.stages(TrialRun(protocol, protocol.seed, *parts)))

    stage: Stage | None
    _result: StageResult | None

    def next_stage(self, number: int) -> Stage | None:
        """Return the next stage, None at the end."""
        torch.manual_seed(number)
        try:
            stage = next(self._plan) if self._result is None else self._plan.send(self._result)
        except StopIteration:
            return None
        self.stage = Contract.of(self.method).yielded(stage, len(self.labels), self.method, self._augmentation)
        return stage

    def end_stage(self, number: int) -> None:
        """End the stage with made-up reports: each class has values of its own, which rise from stage to stage."""
        assert self.stage is not None
        values = np.empty(len(self.order))
        values[self.order] = np.linspace(0.2, 0.7, len(self.order)) + 0.02 * number
        by_class = tuple(values.tolist())
        scores = (by_class, by_class, by_class, 1.0, float(values.mean()))
        reports = [EpochReport(self.stage.name, epoch, {"loss": 1.0}, 1, 1, 1.0, *scores) for epoch in range(2)]
        reports = reports[: max(1, self.stage.epochs)]
        for report in reports if self.stage.recipe is None else ():
            self.method.on_epoch_end(report)
        self._result = StageResult(self.stage.name, False, tuple(reports))

    def hooks(self) -> StageHooks:
        """Return what the stage is trained with."""
        assert self.stage is not None
        return StageHooks.of(self.method, self.stage, self.schedule)

    def rows(self) -> np.ndarray:
        """Return the positions of the stage's images."""
        assert self.stage is not None
        return np.arange(len(self.labels)) if self.stage.indices is None else np.asarray(self.stage.indices)

    def chosen(self) -> np.ndarray:
        """Return how many images of each class the stage has, classes in the first side's order."""
        return np.bincount(self.labels[self.rows()], minlength=len(self.order))[self.order]

    def drawn(self, sampler: SamplerHook) -> np.ndarray:
        """Return the share of each class in what a sampler draws, classes in the first side's order."""
        assert self.stage is not None
        labels = self.labels[self.rows()]
        pool = Pool(labels, np.bincount(labels, minlength=len(self.order)), len(labels))
        epochs = max(1, self.stage.epochs)
        drawn = [
            labels[sampler(pool, Progress(draw % epochs, epochs), np.random.default_rng(draw))[: pool.length]]
            for draw in range(_DRAWS)
        ]
        return np.bincount(np.concatenate(drawn), minlength=len(self.order))[self.order] / sum(map(len, drawn))


def _compare_stages(sides: Sequence[_Side], stages: Sequence[Stage | None]) -> None:
    """Check that two stages are one but for the names of the classes."""
    (first, second), (one, other), name = sides, stages, sides[0].method.name
    if one is None or other is None:
        raise ContractError(f"{name}: the number of its stages depends on the order of the classes")
    for field in fields(Stage):
        given = [getattr(each, field.name) for each in (one, other)]
        if (given[0] is None) != (given[1] is None) or (field.name in _FIELDS and given[0] != given[1]):
            raise ContractError(f"{name}: {field.name} of stage {one.name!r} depends on the order of the classes")
    chosen, permuted = first.chosen(), second.chosen()
    if (np.abs(chosen - permuted) > np.maximum(1, _CHOICE * first.method.task.class_counts)).any():
        raise ContractError(f"{name}: indices of stage {one.name!r} depend on the order of the classes")
    hooks = [side.hooks() for side in sides]
    for field_name in ("sampler", "partner"):
        samplers = [getattr(each, field_name) for each in hooks]
        shares = [side.drawn(each) for side, each in zip(sides, samplers, strict=True) if each is not None]
        if shares and np.abs(shares[0] - shares[1]).max() > _SHARE:
            raise ContractError(f"{name}: {field_name} of stage {one.name!r} depends on the order of the classes")
    if one.epochs > 0:
        what = f"the loss of stage {one.name!r}"
        _compare_losses(first.method, second.method, [(each.loss, each.transform) for each in hooks], what, one.views)


def _compare_losses(first: Method, second: Method, hooks: Sequence[tuple[Any, Any]], what: str, views: int = 3) -> None:
    targets = torch.arange(_BATCH) % len(PLACE)
    for epoch in range(2):
        losses = [
            float(terms_of(method.train(), own, *each, epoch, views)["loss"].detach())
            for method, own, each in zip((first, second), (targets, PLACE[targets]), hooks, strict=True)
        ]
        if not math.isclose(losses[0], losses[1], rel_tol=1e-4, abs_tol=1e-6):
            reason = f"{what} depends on the order of the classes: {losses[0]:.6g}, permuted {losses[1]:.6g}"
            raise ContractError(f"{first.name}: {reason}")
