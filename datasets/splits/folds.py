"""Folds of cross-validation: every image is tested in one of them, a group in one as a whole, classes evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltbench.datasets.splits.longtail import lesion_codes, members_by_class
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
    codes, _ = lesion_codes(labels, groups)
    _require_groups(labels, codes, folds, class_names)
    classes = len(class_names)
    counts = np.zeros((codes.max() + 1, classes))
    np.add.at(counts, (codes, labels), 1)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    held, sizes, fold_of = np.zeros((folds, classes)), np.zeros(folds), np.empty(len(counts), dtype=np.int64)
    for group in order.tolist():
        # With a_f of class c in fold f and s more, the sum of squares over folds grows by 2 a_f s + s².
        growth = held @ shares[group]
        chosen = np.lexsort((sizes, growth.round(9)))[0]
        fold_of[group] = chosen
        held[chosen] += shares[group]
        sizes[chosen] += counts[group].sum()
    return fold_of[codes]


def draw_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    wanted: np.ndarray,
    rng: np.random.Generator,
    class_names: Sequence[str],
    *,
    part: str = "val",
    kept: int = 1,
) -> np.ndarray:
    """Return which images are held out in whole groups, bool [N], so that each class has the wanted number or more.

    Groups are taken in random order, whatever classes they have, where one of these is still short and all of them keep
    some groups. So groups of several classes are held out about as often as others. Images that are a group each give
    exactly the wanted numbers.

    Parameters
    ----------
    labels, groups : int [N], class ids, and str [N]
    wanted : images of each class, int [K]
    part : that they are for
    kept : groups of each class that are left for other parts

    Raises
    ------
    UserError : the groups of a class are too few; the message names it
    """
    codes, _ = lesion_codes(labels, groups)
    counts = np.zeros((codes.max() + 1, len(class_names)), dtype=np.int64)
    np.add.at(counts, (codes, labels), 1)
    held, left = np.zeros_like(wanted), (counts > 0).sum(axis=0)
    taken = np.zeros(len(counts), dtype=bool)
    for group in rng.permutation(len(counts)).tolist():
        own = counts[group] > 0
        if (own & (held < wanted)).any() and (left > kept)[own].all():
            taken[group] = True
            held, left = held + counts[group], left - own
    if (short := np.flatnonzero(held < wanted)).size:
        name, lack = class_names[short[0]], (wanted - held)[short[0]]
        raise UserError(
            f"class {name!r} lacks {lack} of {counted(int(wanted[short[0]]), f'{part} image')}: its images are of too "
            f"few lesions or groups to keep {kept} for other parts; add images, or hold out fewer"
        )
    return taken[codes]


def _require_groups(labels: np.ndarray, codes: np.ndarray, folds: int, class_names: Sequence[str]) -> None:
    """Check that each class has a group for each fold."""
    groups = np.array([len(np.unique(codes[own])) for own in members_by_class(labels, len(class_names))])
    fewest = int(groups.argmin())
    if groups[fewest] >= folds:
        return
    kind = "image" if len(np.unique(codes)) == len(codes) else "group"
    most = int(groups[fewest])
    possible = f"at most --folds {most} is possible" if most > 1 else "folds are not possible with it"
    raise UserError(f"class {class_names[fewest]!r} has {counted(most, kind)}, fewer than {folds} folds; {possible}")
