"""Folds of cross-validation: every image is tested in one of them, a group in one as a whole, classes evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltbench.datasets.splits.groups import Groups
from ltbench.datasets.splits.longtail import members_by_class
from ltbench.errors import UserError, counted


@dataclass(frozen=True)
class Fold:
    """One of the folds.

    Attributes
    ----------
    number : from 0
    count : how many there are
    """

    number: int
    count: int


def fold_numbers(
    labels: np.ndarray, groups: np.ndarray, folds: int, rng: np.random.Generator, class_names: Sequence[str]
) -> np.ndarray:
    """Return the fold in which each image is tested, int64 [N].

    Groups are taken in random order, those of most images first, and each goes to the fold where the shares of its
    classes that the folds have then differ least. So images that are a group each are spread to within one of a class.

    Parameters
    ----------
    labels, groups : int [N], class ids, and str [N]
    folds : at least 2

    Raises
    ------
    UserError : a class has fewer groups than there are folds; the message says how many folds are possible
    """
    held_by = Groups.of(labels, groups, len(class_names))
    _require_groups(labels, held_by.codes, folds, class_names)
    total = np.bincount(labels, minlength=len(class_names))
    order = rng.permutation(len(held_by.sizes))
    order = order[np.argsort(-held_by.sizes[order], kind="stable")]
    held, sizes = np.zeros((folds, len(class_names))), np.zeros(folds)
    fold_of = np.empty(len(held_by.sizes), dtype=np.int64)
    for group in order.tolist():
        classes, counts = held_by.classes(group)
        shares = counts / total[classes]
        # With a_f of class c in fold f and s more, the sum of squares over folds grows by 2 a_f s + s².
        growth = held[:, classes] @ shares
        chosen = np.lexsort((sizes, growth.round(9)))[0]
        fold_of[group] = chosen
        held[chosen, classes] += shares
        sizes[chosen] += counts.sum()
    return fold_of[held_by.codes]


def _require_groups(labels: np.ndarray, codes: np.ndarray, folds: int, class_names: Sequence[str]) -> None:
    """Check that each class has a group for each fold."""
    groups = np.array([len(np.unique(codes[own])) for own in members_by_class(labels, len(class_names))])
    fewest = int(groups.argmin())
    if groups[fewest] >= folds:
        return
    kind = "image" if len(np.unique(codes)) == len(codes) else "group"
    most = int(groups[fewest])  # of which a fold tests one, and val and train need one each
    possible = f"at most --folds {most} is possible" if most > 2 else "folds are not possible with it"
    raise UserError(f"class {class_names[fewest]!r} has {counted(most, kind)}, fewer than {folds} folds; {possible}")
