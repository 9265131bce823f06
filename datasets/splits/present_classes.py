"""A source and a split without the classes of which no image is present, for `--allow-missing`."""

from __future__ import annotations

import copy

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError


def without_absent_classes(source: Source) -> Source:
    """Return the source with only those classes of which an image is present, numbered anew in the same order.

    Ids and images stay as they are; an image of a class that is gone has the label -1. The groups lose what is gone.

    Raises
    ------
    UserError : fewer than two classes are left
    """
    kept = np.unique(source.labels[source.present])
    if len(kept) == len(source.class_names):
        return source
    if len(kept) < 2:
        raise UserError(f"{source.title} has images of {len(kept)} class(es); get more of them, a classifier needs two")
    reduced = copy.copy(source)
    numbers = np.full(len(source.class_names), -1, dtype=np.int64)
    numbers[kept] = np.arange(len(kept))
    reduced.labels = numbers[source.labels]
    reduced.class_names = tuple(source.class_names[label] for label in kept)
    reduced.special_classes = tuple(name for name in source.special_classes if name in reduced.class_names)
    if source.groups is not None:
        reduced.groups = {
            group: tuple(int(numbers[label]) for label in labels if numbers[label] >= 0)
            for group, labels in source.groups.items()
        }
    return reduced


def renumbered(manifest: Manifest, class_names: tuple[str, ...]) -> Manifest:
    """Return a split with the class ids that these names have, and without the classes that are not among them."""
    numbers = {name: label for label, name in enumerate(class_names)}
    kept = manifest.restricted_to(manifest.ids[np.isin(manifest.classes, class_names)])
    labels = np.array([numbers[name] for name in kept.classes.tolist()], dtype=np.int64)
    return Manifest(kept.ids, labels, kept.classes, kept.lesions, kept.parts)
