"""Long-tailed class counts by the Pareto rule, and splits of images or lesions that hit them. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from ltbench.datasets.splits.lesion_choice import choose_lesions
from ltbench.errors import UserError

PARTS = ("train", "val", "test")


def pareto_class_counts(num_classes: int, n_max: int, ratio: float) -> np.ndarray:
    """Return `ceil(n_max * ratio^(-j / (K - 1)))` for rank j: int64 [K], descending, at least 1 each.

    The expression is the authors' own in double precision: its float noise decides the tail (51 below, not 50).

    Parameters
    ----------
    num_classes : K, at least 2
    n_max : images of the most frequent class, at least 1
    ratio : that over the images of the least frequent class, finite, at least 1

    Raises
    ------
    UserError : an argument out of range

    Examples
    --------
    >>> pareto_class_counts(8, 5000, 100).tolist()
    [5000, 2590, 1342, 695, 360, 187, 97, 51]
    """
    _require_integer("num_classes", num_classes, 2)
    _require_integer("n_max", n_max, 1)
    if not (math.isfinite(ratio) and ratio >= 1):
        raise UserError(f"ratio must be a finite number of at least 1, not {ratio}")
    decay = float(ratio) ** (-1 / (int(num_classes) - 1))
    return np.array([math.ceil(decay**j * int(n_max)) for j in range(num_classes)], dtype=np.int64)


def rank_classes(available: np.ndarray) -> np.ndarray:
    """Return the class ids by their number of images [K], most frequent first, ties by id: int64 [K]."""
    return np.argsort(-np.asarray(available, dtype=np.int64), kind="stable")


def held_out_counts(
    available: np.ndarray,
    val_per_class: int | None,
    test_per_class: int | None,
    class_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the val and the test images of every class, int64 [K] each.

    None stands for a share of the class's n images: a fifth for test, a tenth for val, cut at floor(0.7 n) and
    floor(0.8 n) as ISIC-Archive-LT was, with at least one image for val.

    Raises
    ------
    UserError : a number below 0, or a class of less than 3 images that is to be shared out
    """
    available = np.asarray(available, dtype=np.int64)
    few = np.flatnonzero(available < 3)
    if len(few) and (val_per_class is None or test_per_class is None):
        name = _named(int(few[0]), class_names)
        number = f"{available[few[0]]} image{'s' * bool(available[few[0]] != 1)}"
        raise UserError(f"{name} has {number}; train, val and test need at least 3")
    seven, eight = available * 7 // 10, available * 8 // 10
    shares = (np.maximum(eight - seven, 1), available - eight)
    counts = []
    for part, given, share in zip(PARTS[1:], (val_per_class, test_per_class), shares, strict=True):
        if given is not None:
            _require_integer(f"{part} images a class", given, 0)
        counts.append(share if given is None else np.full_like(available, given))
    return counts[0], counts[1]


def longtail_counts(
    available: np.ndarray,
    n_max: int | Literal["auto"],
    ratio: float,
    val_per_class: int | np.ndarray,
    test_per_class: int | np.ndarray,
    *,
    class_names: Sequence[str] | None = None,
    capacity: np.ndarray | None = None,
) -> np.ndarray:
    """Return the train images of every class, int64 [K]: the class of rank j by `available` has the j-th Pareto count.

    Parameters
    ----------
    available : int [K], images of each class
    n_max, ratio : as for `pareto_class_counts`, ratio at most `n_max`; "auto": as many as the data give
    val_per_class, test_per_class : images set aside in each class, 0 or more, alike or int [K]
    class_names : K names for messages; default: the class ids
    capacity : int [K], the most train images a class can give; default: `available` less val and test

    Raises
    ------
    UserError : out of range, or more than the data give; says which class lacks how many, and the `--n-max` to use
    """
    val, test = (
        _by_class(part, given, len(available)) for part, given in (("val", val_per_class), ("test", test_per_class))
    )
    if capacity is None:
        capacity = np.asarray(available, dtype=np.int64) - val - test
    ranked = rank_classes(available)
    names = [_named(class_id, class_names) for class_id in ranked.tolist()]
    aside = " and ".join(f"{_range(counts)} {part}" for counts, part in ((val, "val"), (test, "test")))
    aside += " images a class"
    n_max = _feasible_n_max(np.asarray(capacity)[ranked], names, n_max, ratio, aside)
    counts = np.empty(len(ranked), dtype=np.int64)
    counts[ranked] = pareto_class_counts(len(ranked), n_max, ratio)
    return counts


def split_by_image(
    labels: np.ndarray,
    train_counts: np.ndarray,
    val_per_class: int | np.ndarray,
    test_per_class: int | np.ndarray,
    rng: np.random.Generator,
    class_names: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Draw the images of each class at random: sorted int64 positions for "train", "val" and "test".

    Test is drawn first, then val, then train. With the same generator state, val and test are therefore the same
    images at every ratio, and a smaller train set is a subset of a larger one.

    Parameters
    ----------
    labels : int [N], class ids
    train_counts : int [K], train images of each class id
    val_per_class, test_per_class : of each class, alike or int [K]

    Raises
    ------
    UserError : a class has too few images; the message names it
    """
    parts: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    vals, tests = (
        _by_class("val", val_per_class, len(train_counts)),
        _by_class("test", test_per_class, len(train_counts)),
    )
    for class_id, (count, own) in enumerate(
        zip(train_counts, members_by_class(labels, len(train_counts)), strict=True)
    ):
        members = rng.permutation(own)
        val_count, test_count = int(vals[class_id]), int(tests[class_id])
        lack = val_count + test_count + int(count) - len(members)
        if lack > 0:
            raise UserError(f"{_named(class_id, class_names)} lacks {lack} images: it has only {len(members)}")
        test, val, rest = np.split(members, [test_count, test_count + val_count])
        for part, chosen in zip(PARTS, (rest[:count], val, test), strict=True):
            parts[part].append(chosen)
    return {part: np.sort(np.concatenate(chosen)) for part, chosen in parts.items()}


def split_by_lesion(
    labels: np.ndarray,
    lesions: np.ndarray,
    train_counts: np.ndarray,
    val_per_class: int | np.ndarray,
    test_per_class: int | np.ndarray,
    rng: np.random.Generator,
    class_names: Sequence[str] | None = None,
    *,
    whole: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Draw whole lesions at random, so that no lesion is in two parts: sorted int64 positions for each part.

    As `split_by_image`, with lesions str [N]. Val and test take lesions that add up to their size; where none do, there
    are few surplus images, which are in no part (`choose_lesions`). A lesion whose images have two classes goes to
    train, whole.

    Parameters
    ----------
    whole : those of "val" and "test" that keep their surplus images

    Raises
    ------
    UserError : a class has too few images or too few lesions; the message names it
    """
    codes, mixed = lesion_codes(labels, lesions)
    parts: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    vals, tests = (
        _by_class("val", val_per_class, len(train_counts)),
        _by_class("test", test_per_class, len(train_counts)),
    )
    for class_id, (count, own) in enumerate(
        zip(train_counts, members_by_class(labels, len(train_counts)), strict=True)
    ):
        val_count, test_count = int(vals[class_id]), int(tests[class_id])
        members = rng.permutation(own)
        pure, sizes = np.unique(codes[members][~mixed[codes[members]]], return_counts=True)
        order = rng.permutation(len(pure))
        name = _named(class_id, class_names)
        in_val, in_test = choose_lesions(sizes[order], val_count, test_count, name)
        val = np.isin(codes[members], pure[order[in_val]])
        test = np.isin(codes[members], pure[order[in_test]])
        train = members[~(val | test)]
        if len(train) < count:
            lack = count - len(train)
            raise UserError(f"{name} lacks {lack} images: a split by lesion leaves train {len(train)}, not {count}")
        parts["train"].append(train[:count])
        parts["val"].append(members[val][: None if "val" in whole else val_count])
        parts["test"].append(members[test][: None if "test" in whole else test_count])
    return {part: np.sort(np.concatenate(chosen)) for part, chosen in parts.items()}


def lesion_capacity(
    labels: np.ndarray,
    lesions: np.ndarray,
    num_classes: int,
    val_per_class: int | np.ndarray,
    test_per_class: int | np.ndarray,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the most train images that `split_by_lesion` can give each class: int64 [K].

    Raises
    ------
    UserError : a class whose lesions cannot fill val and test; the message names it
    """
    codes, mixed = lesion_codes(labels, lesions)
    capacity = np.empty(num_classes, dtype=np.int64)
    vals, tests = _by_class("val", val_per_class, num_classes), _by_class("test", test_per_class, num_classes)
    for class_id, members in enumerate(members_by_class(labels, num_classes)):
        own = codes[members]
        sizes = np.sort(np.unique(own[~mixed[own]], return_counts=True)[1])
        in_val, in_test = choose_lesions(
            sizes, int(vals[class_id]), int(tests[class_id]), _named(class_id, class_names)
        )
        capacity[class_id] = len(own) - sizes[in_val].sum() - sizes[in_test].sum()
    return capacity


def members_by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Return the positions of the images of each class: K arrays, int64, ascending.

    Parameters
    ----------
    labels : int [N], class ids in [0, K)
    """
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    return np.split(np.argsort(labels, kind="stable"), ends[:-1])


def lesion_codes(labels: np.ndarray, lesions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesion of each image as a number, int64 [N], and whether a lesion has two classes, bool [L]."""
    names, codes = np.unique(lesions, return_inverse=True)
    pairs = np.unique(np.stack([codes, np.asarray(labels)]), axis=1)
    return codes, np.bincount(pairs[0], minlength=len(names)) > 1


def _feasible_n_max(
    room: np.ndarray, names: Sequence[str], n_max: int | Literal["auto"], ratio: float, aside: str
) -> int:
    """Return `n_max`, or what "auto" stands for, having checked its counts against `room` [K], both by rank."""
    largest = _largest_n_max(room, ratio)
    least = math.ceil(ratio)
    # At ratio 1 an image of each class is enough, so where a class has none left no ratio will do.
    remedy = f"use {'a lower ratio or ' * bool(room.min() > 0)}fewer val or test images"
    if n_max == "auto":
        if largest < least:
            lacking = _lacking(names, pareto_class_counts(len(room), least, ratio) - room)
            raise UserError(
                f"ratio {ratio:g} with {aside} is impossible for these data: it needs --n-max of at least {least}, "
                f"and then {lacking}; {remedy}"
            )
        return largest
    by_rank = pareto_class_counts(len(room), n_max, ratio)
    if n_max < least:
        raise UserError(f"ratio {ratio:g} needs --n-max of at least {least}, not {n_max}")
    if (by_rank > room).any():
        hint = f"use `--n-max auto` (here {largest})" if largest >= least else f"no --n-max will do: {remedy}"
        raise UserError(f"--n-max {n_max} at ratio {ratio:g} with {aside}: {_lacking(names, by_rank - room)}; {hint}")
    return int(n_max)


def _largest_n_max(room: np.ndarray, ratio: float) -> int:
    """Return the largest n_max whose counts fit `room` [K] by rank, 0 where none does."""
    low, high = 0, max(int(room[0]), 0)  # rank 0 takes n_max images itself
    while low < high:  # the counts never fall as n_max grows, so bisection is exact
        middle = (low + high + 1) // 2
        fits = (pareto_class_counts(len(room), middle, ratio) <= room).all()
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _lacking(names: Sequence[str], lack: np.ndarray) -> str:
    return ", ".join(
        f"{name} lacks {count} images" for name, count in zip(names, lack.tolist(), strict=True) if count > 0
    )


def _by_class(part: str, given: int | np.ndarray, num_classes: int) -> np.ndarray:
    """Return a number of images that is alike for all classes as one a class: int64 [K]."""
    if not isinstance(given, np.ndarray):
        _require_integer(f"{part} images a class", given, 0)
    return np.broadcast_to(np.asarray(given, dtype=np.int64), num_classes)


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _named(class_id: int, class_names: Sequence[str] | None) -> str:
    return f"class {class_names[class_id] if class_names is not None else str(class_id)!r}"


def _require_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value < 2**31:
        raise UserError(f"{name} must be a whole number of at least {least} and below 2^31, not {value!r}")
