"""What passes between a method and the trainer: batches, stages of training, reports of their epochs, stop rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

ParamGroups = list[dict[str, Any]]
BatchKind = TypeVar("BatchKind", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """One batch of training images.

    Attributes
    ----------
    views : one float tensor [B, 3, H, W] for each augmented view that the stage asks for
    targets : int64 [B], or float [B, K] after a transform that mixes labels
    indices : int64 [B] on the CPU, positions in the training set
    partner : as many images of the stage's second stream, in the same views; None without one
    """

    views: tuple[Tensor, ...]
    targets: Tensor
    indices: np.ndarray
    partner: Batch | None = None

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]

    def extended(self, kind: type[BatchKind], **values: Any) -> BatchKind:
        """Return a batch of a kind with further fields; `values` are theirs, and those that differ from this one's."""
        return kind(**{own.name: getattr(self, own.name) for own in fields(Batch)} | values)


@dataclass(frozen=True)
class Progress:
    """Where training stands in the current stage; schedules use `fraction`, never a literal epoch.

    Attributes
    ----------
    epoch : 0-based
    epochs : the stage's budget
    """

    epoch: int
    epochs: int

    @property
    def fraction(self) -> float:
        """Share of the stage's epochs that lie behind, in [0, 1)."""
        return self.epoch / self.epochs


@dataclass(frozen=True)
class Pool:
    """The images that an epoch may draw from.

    Attributes
    ----------
    labels : int64 [n]
    class_counts : int64 [K] of these images
    length : draws that the epoch will use; more are cut off, fewer make a shorter epoch
    """

    labels: np.ndarray
    class_counts: np.ndarray
    length: int


@dataclass(frozen=True)
class EpochReport:
    """One epoch, as `metrics.jsonl` keeps it.

    Attributes
    ----------
    stage, epoch : stage name; epoch in it, 0-based (an evaluation without training is epoch 0 too)
    terms : mean over the epoch's steps of everything that the loss returned
    steps, images : optimizer steps, training images seen (every view, and those of the partner stream)
    seconds : wall-clock time of training and validation
    cpu_seconds : CPU time of the process in this time, all its threads; None in reports of earlier versions
    val_recall, val_precision, val_f1 : [K] in [0, 1] on validation images, NaN for a class that has none; None where
        the stage does not validate. Precision is 0 for a class that is never predicted
    val_loss : cross-entropy of the validation logits, nats
    val_top1 : share of validation images that are right
    metric : the protocol's selection metric, which `score` is
    forward_images : images that went through a backbone, in training and validation: every pass of every network
    lr : learning rate of the epoch's last step, of the optimizer's groups the highest; None without training
    """

    stage: str
    epoch: int
    terms: Mapping[str, float]
    steps: int
    images: int
    seconds: float
    val_recall: tuple[float, ...] | None = None
    val_precision: tuple[float, ...] | None = None
    val_f1: tuple[float, ...] | None = None
    val_loss: float | None = None
    val_top1: float | None = None
    metric: str = "mean_class_accuracy"
    forward_images: int = 0
    cpu_seconds: float | None = None
    lr: float | None = None

    @property
    def score(self) -> float:
        """The validation metric that selects epochs, the same for every method. -inf without validation."""
        if self.val_recall is None:
            return -np.inf
        if self.metric == "top1":
            return -np.inf if self.val_top1 is None else self.val_top1
        by_class = self.val_f1 if self.metric == "macro_f1" else self.val_recall
        return -np.inf if by_class is None else float(np.nanmean(by_class))


StopRule = Callable[[Sequence[EpochReport]], bool]


@dataclass(frozen=True)
class Plateau:
    """Stop when the validation score has not risen above the best so far for `patience` epochs.

    A pure function of the stage's reports, so that a resumed stage stops where an uninterrupted one does.

    Attributes
    ----------
    patience : epochs, at least 1
    after : first epochs of the stage that do not count towards patience (their scores still set the mark)
    best : score to beat from earlier stages
    """

    patience: int
    after: int = 0
    best: float = -np.inf

    def waited(self, reports: Sequence[EpochReport]) -> int:
        """Return for how many epochs, not counting the first `after`, the score has not risen."""
        best, waited = self.best, 0
        for report in reports:
            risen = report.score > best
            best = max(best, report.score)
            waited = 0 if risen or report.epoch < self.after else waited + 1
        return waited

    def __call__(self, reports: Sequence[EpochReport]) -> bool:
        """Return whether to stop after the last of `reports`."""
        return self.waited(reports) >= self.patience


LossHook = Callable[[Batch, Progress], Mapping[str, Tensor]]
SamplerHook = Callable[[Pool, Progress, np.random.Generator], np.ndarray]
TransformHook = Callable[[Batch, np.random.Generator], Batch]
PredictHook = Callable[[Tensor], Tensor]
OptimizerHook = Callable[[ParamGroups, "Stage"], torch.optim.Optimizer]
Schedule = Callable[[float], float]


def cosine_decay(done: float) -> float:
    """Return a factor that falls from 1 to 0 along half a cosine; `done` is the share of a stage, in [0, 1]."""
    return (1 + math.cos(math.pi * done)) / 2


_HOOK_FIELDS = ("loss", "sampler", "partner", "transform", "optimizer", "predict", "schedule", "stop")


@dataclass(frozen=True)
class Stage:
    """One optimizer lifetime: images, an objective, the parameters it may move, a stop rule.

    Attributes
    ----------
    name : unique in the method; part of every random stream of the stage
    epochs : budget; 0 trains nothing and evaluates once, so that a method can offer variants of itself to selection
    indices : int64, positions in the training set; None: all
    loss, sampler, transform, optimizer : hooks of this stage; None: the method's own
    partner : a second stream of positions, as `sampler`, from a random stream of its own: its images are augmented as
        the first ones and arrive as `Batch.partner`; None: there is none
    predict : how validation images are classified in a preparatory stage; None: the method's own
    modules : further modules that live for this stage only (a projection head, a queue): trained, checkpointed
        inside the stage, dropped after it
    params : the parameters to train; None: the method's `param_groups`
    frozen : modules kept in eval mode while the stage trains, so that BatchNorm statistics stay as they are
    views : augmented views of each image
    augmentation : fields of the protocol's augmentation that this stage changes
    lr, batch_size : of objectives that the source trains differently, such as pre-training; None: the protocol's
    schedule : share of the stage that is done in the middle of a step, in (0, 1), to the factor on every learning rate;
        None: the protocol's
    stop : called with the stage's reports after each epoch; None: the whole budget
    keep : weights that the stage ends with: of its last or of its best epoch
    validate : whether to evaluate on validation images after each epoch
    select : whether its epochs may become the reported model
    recipe : not None: the stage is shared, computed once for all methods that describe it with the same name, recipe
        and hooks, on the same data, from the same weights, in the same trial. Such a stage must give each hook that
        the method overrides; `Method.on_epoch_end` is not called in it. If it may be selected, it must keep its best
        epoch, and the method may override none of the hooks that train
    produces : names of the submodules that a shared stage changes; all else is as it was afterwards. Where the stage
        may be selected, all that it trains must be in them
    """

    name: str
    epochs: int
    indices: np.ndarray | None = None
    loss: LossHook | None = None
    sampler: SamplerHook | None = None
    partner: SamplerHook | None = None
    transform: TransformHook | None = None
    optimizer: OptimizerHook | None = None
    predict: PredictHook | None = None
    modules: nn.Module | None = None
    params: Sequence[nn.Parameter] | None = None
    frozen: Sequence[nn.Module] = ()
    views: int = 1
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    batch_size: int | None = None
    schedule: Schedule | None = None
    stop: StopRule | None = None
    keep: Literal["last", "best"] = "last"
    validate: bool = True
    select: bool = True
    recipe: Mapping[str, Any] | None = None
    produces: tuple[str, ...] = ("backbone",)

    def __post_init__(self) -> None:
        for name in ("params", "frozen", "produces"):  # a generator can be read once only
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not isinstance(value, Iterable)):
                raise ValueError(f"stage {self.name!r}: {name} must be a sequence, got {type(value).__name__}")
            object.__setattr__(self, name, None if value is None else tuple(value))
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"the name of a stage must be text, got {self.name!r}")
        if self.keep not in ("last", "best"):
            raise ValueError(f"stage {self.name!r}: keep must be 'last' or 'best', got {self.keep!r}")
        for name in _HOOK_FIELDS:
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ValueError(f"stage {self.name!r}: {name} must be a function, got {getattr(self, name)!r}")
        if not self.validate and (self.select or self.keep == "best" or self.epochs == 0):
            raise ValueError(f"stage {self.name!r} does not validate, so it cannot be selected or keep its best epoch")
        if self.recipe is not None and self.select and self.keep != "best":
            raise ValueError(f"stage {self.name!r} is shared and may be selected, so it needs keep='best'")
        if self.predict is not None and self.select and self.recipe is None:
            raise ValueError(f"stage {self.name!r} predicts in its own way, so it is preparatory: select=False")


@dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes
    ----------
    stopped : whether the stop rule ended it; False: the budget was spent
    reports : one an epoch
    """

    name: str
    stopped: bool
    reports: tuple[EpochReport, ...]

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.reports)

    @property
    def best(self) -> float:
        """The highest validation score of the stage."""
        return max((report.score for report in self.reports), default=-np.inf)

    @property
    def val_recall(self) -> np.ndarray:
        """Validation accuracy of each class after the last epoch, float64 [K]."""
        return np.asarray(self.reports[-1].val_recall, dtype=np.float64)
