"""Kinds of values in records, with the ranges that they may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from ltbench.benchmarks.analysis.record_files.later_fields import LATER_FIELDS

Count = Annotated[int, Field(ge=0, le=2**53)]  # what every reader of JSON keeps exactly
Share = Annotated[float, Field(ge=0, le=1 + 1e-9)]  # sums are rounded
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@with_config(ConfigDict(extra="allow"))
class ProtocolValues(TypedDict):
    """The protocol as recorded: all its fields by name, of which those that tables name are typed."""

    preset: str
    backbone: str
    image_size: Annotated[int, Field(ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    folds: NotRequired[Count]


def current_fields(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded protocol under the names of this version, as far as it has them."""
    values = {**LATER_FIELDS, **recorded}
    if "pretrained" in values:
        values["weights"] = "timm" if values.pop("pretrained") else "none"
    if isinstance(values.get("augmentation"), Mapping):
        values["augmentation"] = {"interpolation": "bilinear", **values["augmentation"]}
    return values


@with_config(ConfigDict(extra="allow"))
class Scores(TypedDict):
    """The metrics of one part as recorded: all that `metrics.evaluate` gives; None is undefined."""

    mean_class_accuracy: Share
    top1: NotRequired[Share]
    head: NotRequired[Share | None]
    medium: NotRequired[Share | None]
    tail: NotRequired[Share | None]
    mean_of_group_means: NotRequired[Share | None]
    macro_f1: NotRequired[Share]
    macro_auroc: NotRequired[Share | None]
    macro_auprc: NotRequired[Share | None]
    ece: NotRequired[Share]
    classwise_ece: NotRequired[Share]
    cross_entropy: NotRequired[Amount]
    per_class_accuracy: NotRequired[list[Share | None]]
    per_class_count: NotRequired[list[Count]]
    confusion: NotRequired[list[list[Count]]]
