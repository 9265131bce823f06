"""What a record says of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ltbench.benchmarks.analysis.record_files.values import Amount, Count
from ltbench.files import plain


@dataclass(frozen=True)
class SharedImages:
    """What two parts of a split share.

    Attributes
    ----------
    images : in both
    lesion_images : of the second that show a lesion of the first; None where lesions are not known
    total : images of the second
    """

    images: Count
    lesion_images: Count | None
    total: Count


@dataclass(frozen=True)
class DataDescription:
    """What records say of the data of a trial.

    Attributes
    ----------
    dataset, variant, title, licence, citation : of the source
    split : `paper`, `lesion`, `official` or `published`
    ratio : imbalance ratio; of natural data, that of the training images
    natural : whether the data are as they are, not thinned to a ratio
    class_names : by class id
    class_counts : training images by class id
    groups : class ids of head, medium and tail
    overlap : what pairs of parts share, by names like `train/test`
    special_classes : names of the classes of special interest, whose sensitivity is among the metrics
    notes : what a reader of the numbers has to know, one line each
    group_name : what images that are not independent share, a lesion or what the user's table groups by
    pixels : digest of the decoded images; empty where they are not decoded yet
    varied_from : SHA-256 of the manifest of trial 0's split, where each trial draws its own; None: all share one split
    stored_size : side of the images as they were decoded, pixels; None in records of earlier versions
    """

    dataset: str
    variant: str
    title: str
    licence: str
    citation: str
    split: str
    ratio: Amount
    natural: bool
    class_names: tuple[str, ...]
    class_counts: tuple[Count, ...]
    groups: Mapping[str, tuple[Count, ...]]
    overlap: Mapping[str, SharedImages]
    special_classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    group_name: str = "lesion"
    pixels: str = ""
    varied_from: str | None = None
    stored_size: Count | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON keeps it; `varied_from` and `stored_size` are left out where they are None."""
        absent = [name for name in ("varied_from", "stored_size") if getattr(self, name) is None]
        return {name: own for name, own in as_json(self).items() if name not in absent}


def as_json(value: Any) -> Any:
    """Return a value as JSON keeps it, dataclasses as mappings of their fields."""
    if hasattr(value, "__dataclass_fields__"):
        return {own.name: as_json(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(own) for name, own in value.items()}
    if isinstance(value, tuple):
        return [as_json(own) for own in value]
    return plain(value)
