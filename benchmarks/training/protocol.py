"""The protocol: everything that all methods share, as one frozen value with a digest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

from ltbench.benchmarks.analysis.record_files.later_fields import LATER_FIELDS
from ltbench.datasets.images.augmentation import INTERPOLATIONS, Augmentation
from ltbench.errors import UserError
from ltbench.files import json_digest
from ltbench.registry import unknown


@dataclass(frozen=True)
class Protocol:
    """Hyper-parameters shared by all methods; two results are comparable only if their digests are equal.

    Attributes
    ----------
    preset : whose defaults the methods' own hyper-parameters take
    backbone : timm model
    weights : what it starts from: `none`, random weights; `timm`, those that timm names for it, `timm:TAG`, others of
        them; `file:PATH`, a file of weights or a folder of the hub's form; `hub:ID`, of the Hugging Face hub
    weights_sha256 : of their file; filled in by the plan
    tune : of `TUNINGS`, what of it is trained beside the head: `full`, all; `head`, nothing; `bias` and `norm`, those
        parameters of its blocks; `lora` and `adaptformer`, layers of rank `tune_rank` that are added to its blocks
    frozen_features : whether methods train their heads on features of the frozen network, computed once, of whole
        images without augmentation; with `tune` `head` alone
    image_size : pixels, square
    optimizer : of `OPTIMIZERS`: Adam, AdamW, or SGD with momentum 0.9
    lr, weight_decay, batch_size : of every training stage that does not prepare something else
    schedule : of `SCHEDULES`, how the learning rate falls over a stage: `constant`, or `cosine` to 0
    lr_warmup : share of a stage over which the learning rate rises from 0, in [0, 1)
    epochs : of one training, that of `ce`
    budget : of `BUDGETS`: `paper`, preparatory and second stages of a method are extra and charged in its cost; or
        `total`, all stages of a method take at most the optimizer steps of `epochs` epochs, the shared encoder of
        `init` included
    init : of `INITS`, what every method's encoder starts from: `scratch`, the weights of the backbone; or the encoder
        of the trial, trained once on its training images: `ssl` without labels, by momentum contrast, `ssl:NAME` by
        another scheme (`ssl:kcl` takes labels), `ce` by plain cross-entropy
    patience : early stopping, epochs without a rise of the selection metric
    epoch_length : steps of an epoch on n of N images: `pass` ceil(n / batch_size), `steps` ceil(N / batch_size)
    precision : `bf16` (autocast) or `fp32`; `auto` is bf16 on a GPU that has it, else fp32
    selection_metric : of `SELECTION_METRICS`, the validation metric that selects the reported epoch
    tta : of `TTAS`, of what reported logits are the mean: `none`, the whole image alone; `five_crop`, its centre and
        corners, of the image resized to 24 / 224 more than `image_size`; also of validation images, in every epoch
    seed : of the split and, plus the trial's number, of the trials
    vary_split : each trial draws a split of its own, by its own seed, instead of all by that of trial 0
    folds : trial k tests on fold k of so many, which hold every image once; 0: all trials test on the same images
    """

    preset: str
    backbone: str
    image_size: int
    batch_size: int
    lr: float
    epochs: int
    patience: int
    epoch_length: str
    precision: str = "auto"
    weights: str = "none"
    weights_sha256: str = ""
    tune: str = "full"
    tune_rank: int = 8
    optimizer: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    lr_warmup: float = 0.0
    selection_metric: str = "mean_class_accuracy"
    budget: str = "paper"
    init: str = "scratch"
    tta: str = "none"
    frozen_features: bool = False
    seed: int = 0
    vary_split: bool = False
    folds: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        minimum = {"image_size": 16, "batch_size": 2, "epochs": 1, "patience": 1, "tune_rank": 1}
        for name, low in minimum.items():
            if getattr(self, name) < low:
                raise UserError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}")
        for name, high in _MAXIMUM.items():
            if getattr(self, name) > high:
                raise UserError(f"--{name.replace('_', '-')} must be at most {high}, got {getattr(self, name)}")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"--folds must be at least 2, got {self.folds}")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr must be a number above 0, got {self.lr}")
        if not 0 <= self.weight_decay < float("inf"):
            raise UserError(f"--weight-decay must be a number of at least 0, got {self.weight_decay}")
        if not 0 <= self.lr_warmup < 1:
            raise UserError(f"--lr-warmup must be a share of a stage, at least 0 and below 1, got {self.lr_warmup}")
        if not re.fullmatch(_WEIGHTS, self.weights):
            raise UserError(f"--weights must be none, timm, timm:TAG, file:PATH or hub:ID, got {self.weights!r}")
        if self.augmentation.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.augmentation.interpolation, INTERPOLATIONS)
        if self.frozen_features:
            usual = (self.tune, self.init, self.tta) == ("head", "scratch", "none")
            if not usual:
                raise UserError("--frozen-features needs --tune head, and is not for --init or --tta")
            object.__setattr__(self, "augmentation", self.augmentation.without_changes())
        if self.tune_rank != type(self).tune_rank and not self.has_adapters:
            raise UserError(f"--tune-rank is of --tune {' and '.join(ADAPTERS)}, not of {self.tune}; leave it out")
        if self.tune != "full" and self.init != "scratch":
            raise UserError(
                f"--init {self.init} trains the encoder of every method, which --tune {self.tune} freezes from the "
                "start; leave one of them out"
            )
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown(name.replace("_", " "), getattr(self, name), allowed)

    @property
    def own_splits(self) -> bool:
        """Whether each trial has a split of its own."""
        return self.vary_split or self.folds > 0

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Protocol:
        """Return the protocol that a record holds; fields that came later have their defaults.

        Raises
        ------
        UserError : fields that this version does not know, or values out of range
        """
        drawn: dict[str, Any] = {
            name: tuple(own) if isinstance(own, list) else own for name, own in values["augmentation"].items()
        }
        held = {**values, "augmentation": Augmentation(**drawn)}
        if "pretrained" in held:
            held["weights"] = published_weights(held.pop("pretrained"))
        try:
            return cls(**held)
        except TypeError as error:
            raise UserError(f"a protocol that this version does not know ({error})") from error

    def digest(self) -> str:
        """Return the SHA-256 of all fields, hex; fields that came later are left out at their defaults.

        Weights of a file are known by its SHA-256, not by where it lies.
        """
        values = asdict(self)
        del values["weights"]
        if self.weights in ("none", "timm"):  # as before weights could be others
            values["pretrained"] = self.weights == "timm"
        else:
            values["weights"] = self.weights if self.weights_kind == "timm" else "file"
        if self.augmentation.interpolation == Augmentation.interpolation:
            del values["augmentation"]["interpolation"]
        return json_digest({name: value for name, value in values.items() if LATER_FIELDS.get(name) != value})

    @property
    def weights_kind(self) -> str:
        """Where the weights are from: `none`, `timm`, `file` or `hub`."""
        return self.weights.partition(":")[0]

    @property
    def has_adapters(self) -> bool:
        """Whether layers are added to the backbone."""
        return self.tune in ADAPTERS

    @property
    def shared_encoder(self) -> bool:
        """Whether methods find a backbone that is trained already (`init`, `weights`), or frozen but for some parts."""
        return self.init != "scratch" or self.tune != "full" or self.weights != "none"

    def without_weights(self) -> Protocol:
        """Return the protocol of the same networks at random weights."""
        return replace(self, weights="none", weights_sha256="")

    def as_recorded(self) -> dict[str, Any]:
        """Return all fields as records hold them: of a file of weights its name, not where it lies."""
        named = {"weights": f"file:{PurePath(self.weights.removeprefix('file:')).name}"}
        return {**asdict(self), **(named if self.weights_kind == "file" else {})}


def published_weights(pretrained: Any) -> str:
    """Return the weights that `pretrained`, a field of earlier versions, stands for.

    Raises
    ------
    UserError : no truth value
    """
    if not isinstance(pretrained, bool):
        raise UserError(f"--pretrained must be true or false, got {pretrained!r}")
    return "timm" if pretrained else "none"


_MAXIMUM = {
    "image_size": 4096,
    "batch_size": 2**20,
    "epochs": 10**6,
    "patience": 10**6,
    "lr": 1e3,
    "weight_decay": 1e3,
    "tune_rank": 1024,
    "folds": 1000,
}
PRECISIONS = ("auto", "bf16", "fp32")
EPOCH_LENGTHS = ("pass", "steps")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
SELECTION_METRICS = ("mean_class_accuracy", "macro_f1", "top1")
BUDGETS = ("paper", "total")
INITS = ("scratch", "ssl", "ssl:simclr", "ssl:byol", "ssl:simsiam", "ssl:barlow", "ssl:kcl", "ce")
TTAS = ("none", "five_crop")
ADAPTERS = ("lora", "adaptformer")
TUNINGS = ("full", "head", "bias", "norm", *ADAPTERS)
_CHOICES = {
    "tune": TUNINGS,
    "tta": TTAS,
    "precision": PRECISIONS,
    "epoch_length": EPOCH_LENGTHS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "selection_metric": SELECTION_METRICS,
    "budget": BUDGETS,
    "init": INITS,
}
_WEIGHTS = r"none|timm|(timm|file|hub):\S.*"

PRESETS = {
    "paper": Protocol(
        preset="paper",
        backbone="resnet18",
        image_size=224,
        batch_size=256,
        lr=3e-4,
        epochs=100,
        patience=20,
        epoch_length="pass",
    ),
    "quick": Protocol(
        preset="quick",
        backbone="test_resnet",
        image_size=40,
        batch_size=32,
        lr=1e-3,
        epochs=20,
        patience=8,
        epoch_length="steps",
    ),
    "board64": Protocol(
        preset="board64",
        backbone="resnet18",
        image_size=64,
        batch_size=64,
        lr=3e-4,
        epochs=30,
        patience=10,
        epoch_length="steps",
    ),
}

PRESETS["finetune"] = Protocol(
    preset="finetune",
    backbone="vit_small_patch14_reg4_dinov2",
    weights="timm",
    tune="adaptformer",
    image_size=224,
    batch_size=64,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    schedule="cosine",
    epochs=20,
    patience=20,
    epoch_length="steps",
)
PRESETS["probe"] = replace(
    PRESETS["finetune"], preset="probe", tune="head", frozen_features=True, epochs=50, patience=50
)
PRESETS["paper_archive"] = replace(PRESETS["paper"], preset="paper_archive", backbone="resnet50")

PRESET_SUMMARIES = {
    "paper": "ResNet-18 from scratch, 224 px, Adam 3e-4, batch 256, at most 100 epochs, patience 20 (MICCAI 2022)",
    "paper_archive": "as paper, with ResNet-50 (ISIC-Archive-LT)",
    "board64": "ResNet-18 from scratch, 64 px, Adam 3e-4, batch 64, at most 30 epochs, patience 10; of real lesions",
    "finetune": "a pre-trained ViT-S/14 (DINOv2) with adapters, 224 px, AdamW 1e-3, cosine, batch 64, 20 epochs",
    "probe": "its features, computed once: heads alone, AdamW 1e-3, cosine, batch 64, 50 epochs; seconds a method",
    "quick": "a small ResNet, 40 px, Adam 1e-3, batch 32, at most 20 epochs, patience 8: minutes on two cores",
}


def protocol_for(preset: str, **changes: Any) -> Protocol:
    """Return the preset's protocol with the given fields changed; None leaves a field as it is.

    Raises
    ------
    UserError : unknown preset, or a value out of range
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})
