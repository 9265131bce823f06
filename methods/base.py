"""The contract between a method and the trainer.

A method is one object that the trainer calls and never inspects. It yields stages; a stage is one optimizer
lifetime. The trainer runs each and sends its result back into the method, so that a procedure of many stages is
ordinary Python, and a method of one stage never notices.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.losses.precision import full_precision as full_precision  # for plug-ins, too
from ltbench.methods import HOOKS
from ltbench.methods.hyperparameters import check_config
from ltbench.methods.stages import Batch, EpochReport, ParamGroups, Plateau, Pool, Progress, Stage, StageResult
from ltbench.samplers import shuffled_stream

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


class Run(ABC):
    """What a method sees of the world between stages. It holds no test data.

    Attributes
    ----------
    labels : int64 [N], class ids of the training images
    class_counts : int64 [K]
    val_class_counts : int64 [K], of the validation images
    epochs : of one training; what a method does longer or shorter is a share of it. The protocol's, less where all its
        stages share them (`--budget total`)
    patience, batch_size, lr : of the protocol
    shared_encoder : whether the backbone has been trained before the first stage, for all methods alike (`--init`,
        `--weights`), or is but for some parts of it frozen (`--tune`): a method then leaves out pre-training of its own
    """

    labels: np.ndarray
    class_counts: np.ndarray
    val_class_counts: np.ndarray
    epochs: int
    patience: int
    batch_size: int
    lr: float
    shared_encoder: bool = False

    @abstractmethod
    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return `Method.features` of training images, eval mode, nothing random: float32 [n, D]."""

    @abstractmethod
    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return the accuracy of `Method.predict` on training images by class: float64 [K], NaN if absent."""

    @abstractmethod
    def mc_scores(
        self, indices: np.ndarray, passes: int, stream: str, score: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return a score of each given training image from its class probabilities in stochastic passes: float64 [n].

        One pass through the backbone in eval mode; then `passes` times `Method.classify` with dropout on. No
        buffer of the method changes.

        Parameters
        ----------
        score : of the images of a batch: float64 [passes, b, K] to float64 [b]; probabilities of all images are
            never in memory at once
        """

    @abstractmethod
    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `Method.predict` of the validation images, float32 [n, K], and their classes, int64 [n].

        Kept in the journal, so that a resumed trial gets the same logits; inside `memo`, whose value is kept, they are
        not. For temperatures and other choices after training.
        """

    @abstractmethod
    def validation_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `Method.features` of the validation images, float32 [n, D], and their classes, int64 [n].

        To be called inside `memo`, which keeps what is made of them.
        """

    @abstractmethod
    def rng(self, name: str) -> np.random.Generator:
        """Return the trial's random stream of this name; the same name gives the same stream."""

    @abstractmethod
    def memo(self, name: str, compute: Callable[[], Any], *, story: bool = True) -> Any:
        """Return `compute()`, computed once in the life of the trial and kept in its journal.

        With `story`, it is part of the record's story, too; leave out a large value that explains nothing.

        The value is what JSON keeps: numbers, strings, lists, dicts (arrays become lists). Whatever reads a network
        between stages must go through here, so that a resumed trial decides as it did before.
        """

    def steps(self, epochs: int, batch_size: int | None = None) -> int:
        """Return the optimizer steps of some epochs on all training images, the most that any sampler takes.

        Parameters
        ----------
        batch_size : None: the protocol's
        """
        return epochs * -(-len(self.labels) // (batch_size or self.batch_size))

    def early_stopping(self, after: int = 0, best: float = -np.inf) -> Plateau:
        """Return the protocol's stop rule."""
        return Plateau(self.patience, after, best)


def share_of_epochs(run: Run, share: float) -> int:
    """Return the epochs of a stage that is a share of one training, at least 1."""
    return max(1, round(share * run.epochs))


def needed_of_backbone(method: type[Method]) -> Literal["features", "images", "stages"]:
    """Return what a method `needs`, but `features` only where its very class says so, as hooks may differ."""
    return "images" if method.needs == "features" and "needs" not in vars(method) else method.needs


def feature_width(backbone: Any) -> int:
    """Return D of the features [B, D] that a backbone gives.

    timm's `num_features` are the channels of its last map; a head with a layer of its own gives another number.
    """
    return getattr(backbone, "head_hidden_size", None) or backbone.num_features


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
                "(begin the name of your own methods with an underscore)"
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

    Attributes
    ----------
    needs : what the method needs of the backbone: `features` of whole images as `features` returns them, each by
        itself, so that they may be computed beforehand; `images`, which it mixes, crops or passes more than once;
        `stages`, to look inside it or to have further ones, so that all of it must be trained. `features` is of the
        class that says so, and not of those derived from it
    """

    @dataclass(frozen=True)
    class Config:
        """Hyper-parameters of the method's own, declared with `hp`; none of the protocol's."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_config(cls.__name__, cls.Config)
        _check_hooks(cls)

    name: ClassVar[str]
    needs: ClassVar[Literal["features", "images", "stages"]] = "images"
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

    def most_steps(self, run: Run) -> int:
        """Return the optimizer steps that all stages take at most, in terms of `run.steps` and `run.epochs`.

        `--budget total` asks it for fewer and fewer epochs until they fit. Default: one training.
        """
        return run.steps(run.epochs)

    def stages(self, run: Run) -> Generator[Stage, StageResult, None]:
        """Yield the stages of training. Default: one, all images, the protocol's epochs and early stopping."""
        yield Stage("train", run.epochs, stop=run.early_stopping())
