"""The contract between a method and the trainer.

A method is one object that the trainer calls and never inspects. It yields stages; a stage is one optimizer
lifetime. The trainer runs each and sends its result back into the method, so that a procedure of many stages is
ordinary Python, and a method of one stage never notices.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.methods import HOOKS
from ltbench.methods.hyperparameters import check_config
from ltbench.samplers import shuffled_stream

ParamGroups = list[dict[str, Any]]
OptimizerFactory = Callable[[ParamGroups], torch.optim.Optimizer]


def _adam(groups: ParamGroups) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups)


def _no_backbone() -> nn.Module:
    raise RuntimeError("this task has no further backbones; give Task(new_backbone=...)")


@dataclass(frozen=True)
class Task:
    """What a method may know before training.

    Attributes
    ----------
    num_classes : K
    class_counts : int64 [K], images of the full training set by class id, each at least 1
    image_size : side of the network's input, pixels
    class_names : by class id; () where they are not known
    new_backbone : returns a further network like the backbone, with initial weights of its own: those of the first
        call are the same in every trial of this seed, whatever the method, and so on
    new_optimizer : returns the protocol's optimizer of some parameter groups, each with its `lr`

    Raises
    ------
    ValueError : counts that are not whole numbers [K], or a class without an image
    """

    num_classes: int
    class_counts: np.ndarray
    image_size: int
    class_names: tuple[str, ...] = ()
    new_backbone: Callable[[], nn.Module] = _no_backbone
    new_optimizer: OptimizerFactory = _adam

    def __post_init__(self) -> None:
        counts = np.asarray(self.class_counts)
        if counts.shape != (self.num_classes,) or not np.issubdtype(counts.dtype, np.integer):
            raise ValueError(
                f"class_counts must be whole numbers of shape [{self.num_classes}], "
                f"got {counts.dtype} of shape {list(counts.shape)}"
            )
        if (counts < 1).any():
            raise ValueError(f"every class needs at least one training image, got class_counts {counts.tolist()}")
        object.__setattr__(self, "class_counts", counts.astype(np.int64))


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


SELECTION_METRICS = ("mean_class_accuracy", "macro_f1", "top1")
"""Validation metrics that may select the reported epoch."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch, as `metrics.jsonl` keeps it.

    Attributes
    ----------
    stage, epoch : stage name; epoch in it, 0-based (an evaluation without training is epoch 0 too)
    terms : mean over the epoch's steps of everything that the loss returned
    steps, images : optimizer steps, training images seen (every view, and those of the partner stream)
    seconds : wall-clock time of training and validation
    val_recall, val_precision, val_f1 : [K] in [0, 1] on validation images, NaN for a class that has none; None where
        the stage does not validate. Precision is 0 for a class that is never predicted
    val_loss : cross-entropy of the validation logits, nats
    val_top1 : share of validation images that are right
    metric : of `SELECTION_METRICS`, what `score` is
    forward_images : images that went through a backbone, in training and validation: every pass of every network
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
    metric: str = SELECTION_METRICS[0]
    forward_images: int = 0

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
    schedule : share of the stage that is done, in [0, 1), to the factor on every learning rate; None: the protocol's
    stop : called with the stage's reports after each epoch; None: the whole budget
    keep : weights that the stage ends with: of its last or of its best epoch
    validate : whether to evaluate on validation images after each epoch
    select : whether its epochs may become the reported model
    recipe : not None: the stage is shared, computed once for all methods that describe it with the same name, recipe
        and hooks, on the same data, from the same weights, in the same trial. Such a stage must give each hook that
        the method overrides; `Method.on_epoch_end` is not called in it. If it may be selected, it must keep its best
        epoch, and the method may override none of the hooks that train
    produces : names of the submodules that a shared stage changes; all else must stay as it was
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


class Run(ABC):
    """What a method sees of the world between stages. It holds no test data.

    Attributes
    ----------
    labels : int64 [N], class ids of the training images
    class_counts : int64 [K]
    val_class_counts : int64 [K], of the validation images
    epochs, patience : of the protocol
    batch_size, lr : of the protocol
    """

    labels: np.ndarray
    class_counts: np.ndarray
    val_class_counts: np.ndarray
    epochs: int
    patience: int
    batch_size: int
    lr: float

    @abstractmethod
    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return `Method.features` of training images, eval mode, nothing random: float32 [n, D]."""

    @abstractmethod
    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return the accuracy of `Method.predict` on training images by class: float64 [K], NaN if absent."""

    @abstractmethod
    def mc_probabilities(self, indices: np.ndarray, passes: int, stream: str) -> np.ndarray:
        """Return class probabilities of stochastic passes over training images: float64 [passes, n, K].

        One pass through the backbone in eval mode; then `passes` times `Method.classify` with dropout on. No
        buffer of the method changes.
        """

    @abstractmethod
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `Method.predict` of the validation images, float32 [n, K], and their classes, int64 [n].

        Kept in the journal, so that a resumed trial gets the same logits; inside `memo`, whose value is kept, they are
        not. For temperatures and other choices after training.
        """

    @abstractmethod
    def rng(self, name: str) -> np.random.Generator:
        """Return the trial's random stream of this name; the same name gives the same stream."""

    @abstractmethod
    def memo(self, name: str, compute: Callable[[], Any], *, told: bool = True) -> Any:
        """Return `compute()`, computed once in the life of the trial and kept in its journal.

        Told, it is part of the record's story too; a large value that explains nothing is better not.

        The value is what JSON keeps: numbers, strings, lists, dicts (arrays become lists). Whatever reads a network
        between stages must go through here, so that a resumed trial decides as it did before.
        """

    def early_stopping(self, after: int = 0, best: float = -np.inf) -> Plateau:
        """Return the protocol's stop rule."""
        return Plateau(self.patience, after, best)


def feature_width(backbone: Any) -> int:
    """Return D of the features [B, D] that a backbone gives.

    timm's `num_features` are the channels of its last map; a head with a layer of its own gives another number.
    """
    return getattr(backbone, "head_hidden_size", None) or backbone.num_features


def full_precision(values: Tensor) -> Tensor:
    """Return half precision, which autocast gives, as float32; float32 and float64 stay what they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_hooks(method: type[Method]) -> None:
    """Refuse a name that looks like a misspelt hook: nothing would call it, and the base class's would run instead.

    Raises
    ------
    TypeError
    """
    for name in vars(method):
        if name.startswith("_") or name in HOOKS or hasattr(Method, name):
            continue
        near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.75)
        if near:
            raise TypeError(
                f"{method.__name__}.{name} is no hook; did you mean {near[0]!r}? "
                "(begin the name of a method of your own with an underscore)"
            )


class Method(nn.Module):
    """Base of every plug-in. Override the hooks that you need; as it stands it is plain cross-entropy.

    Parameters
    ----------
    config : instance of this class's `Config`
    task : classes and class counts
    backbone : images [B, 3, H, W] to features [B, `feature_width`]. It is a timm model: a method that looks inside uses
        `forward_features`, `forward_head`, `forward_intermediates` and `feature_info`, and refuses a backbone that
        does not give it what it needs
    """

    @dataclass(frozen=True)
    class Config:
        """Hyper-parameters of the method's own, declared with `hp`; none of the protocol's."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_config(cls.__name__, cls.Config)
        _check_hooks(cls)

    name: ClassVar[str]
    backbone: Any
    head: Any

    def __init__(self, config: Any, task: Task, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.task = task
        self.backbone = backbone
        self.build()
        self.loss_function = self.criterion()

    @classmethod
    def check(cls, config: Any, class_counts: np.ndarray) -> None:
        """Refuse settings that the training set cannot give, before anything is trained.

        Raises
        ------
        ValueError
        """

    def build(self) -> None:
        """Create heads, buffers and losses. Default: a linear head."""
        self.head = nn.Linear(feature_width(self.backbone), self.task.num_classes)

    def criterion(self) -> nn.Module:
        """Return the loss of logits [B, K] and targets that `loss` uses; called once, after `build`.

        Default: mean cross-entropy. A method that differs in its loss alone overrides this.
        """
        return nn.CrossEntropyLoss()

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features: [B, 3, H, W] to [B, D], at least float32."""
        return full_precision(self.backbone(images))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits [B, K] of features [B, D]; at least float32, also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(full_precision(features))

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits that are reported: [B, 3, H, W] to [B, K]."""
        return self.classify(self.features(images))

    def inspect(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return `predict` of images, and what else the record is to keep of each: {name: int64 or float [B]}.

        Called once, on validation and test images, with the selected weights. Default: nothing else.
        """
        return self.predict(images), {}

    def sampler(self, pool: Pool, progress: Progress, rng: np.random.Generator) -> np.ndarray:
        """Return the epoch's stream of positions into `pool.labels`. Default: shuffled, without replacement."""
        return shuffled_stream(len(pool.labels), pool.length, rng)

    def transform(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Change an augmented training batch before the loss. Default: as it is."""
        return batch

    def loss(self, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Return {"loss": scalar to minimise, and further scalars to log}. Default: `criterion` of the logits."""
        return {"loss": self.loss_function(self.classify(self.features(batch.images)), batch.targets)}

    def param_groups(self, lr: float) -> ParamGroups:
        """Return the optimizer's parameter groups, each with `lr`. Default: one group of all parameters."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def optimizer(self, groups: ParamGroups, stage: Stage) -> torch.optim.Optimizer:
        """Return the optimizer of a stage: its `step` gets a closure that computes loss and gradients anew.

        It needs `param_groups`, `state_dict` and `load_state_dict` of all that it keeps. Default: the protocol's.
        """
        return self.task.new_optimizer(groups)

    def on_epoch_end(self, report: EpochReport) -> None:
        """See an epoch's report. What is kept must be a buffer, or resume loses it; not for shared stages."""

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield the stages of training. Default: one, all images, the protocol's epochs and early stopping."""
        yield Stage("train", run.epochs, stop=run.early_stopping())
