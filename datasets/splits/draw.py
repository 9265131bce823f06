"""Splits of a source: drawn by image or by lesion, the dataset's own parts, or read from the authors' files.

Training images follow the long-tail rule at a ratio, or are all that is left at the `natural` one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.splits.folds import Fold, fold_numbers
from ltbench.datasets.splits.groups import draw_groups
from ltbench.datasets.splits.longtail import (
    PARTS,
    held_out_counts,
    lesion_capacity,
    longtail_counts,
    split_by_image,
    split_by_lesion,
)
from ltbench.datasets.splits.manifest import Manifest, overlap
from ltbench.datasets.splits.one_per_lesion import hold_out
from ltbench.datasets.splits.published import check_label_dictionary, part_path, positions_of, published_split
from ltbench.errors import UserError
from ltbench.registry import unknown

# Separates the stream of splits from every other one that is drawn from the same seed.
_OF_FOLDS = "add images, use more folds, or leave the class out"
_STREAM = int.from_bytes(b"split", "little")


def make_split(
    source: Source,
    *,
    split: str,
    split_dir: Path | None,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    val_per_class: int | None,
    test_per_class: int | None,
    seed: int,
    allow_missing: bool,
    per_lesion: str = "all",
    fold: Fold | None = None,
) -> Manifest:
    """Return the split of a source: the authors' own where `split_dir` is given, else one drawn with `seed`.

    With `allow_missing`, a split is drawn from the images present alone, and the authors' is returned whole:
    `restrict` drops what is missing.

    Parameters
    ----------
    split : "paper" (by image), "lesion" (no lesion in two parts, same counts), or "official" (the dataset's own parts)
    ratio, n_max : as for `longtail_counts`; "natural": all images that val and test leave, whatever `n_max`
    val_per_class, test_per_class : as for `held_out_counts`; not of the authors' files and of official parts. Of whole
        lesions, a share is the least that a part has, a number exactly what it has
    per_lesion : of `PER_LESION`: `all` images of a lesion may be in val or test, or `one`; of splits drawn here
    fold : whose images are the test part, instead of `test_per_class`; of splits drawn here

    Raises
    ------
    UserError : unknown split; one image a lesion where lesions are unknown, or of a split that is not drawn here; seed
        below 0; images missing without `allow_missing`; counts that the data cannot give; split files missing, damaged,
        with one image in two parts, or not of this dataset
    """
    _require_sense(split, split_dir, per_lesion, fold)
    if split_dir is not None:
        manifest = _sound(published_manifest(source, split_dir, ratio), split_dir, source.class_names)
        if not allow_missing:
            _require_images(source, np.isin(source.ids, manifest.ids))
        return manifest
    if (split == "lesion" or per_lesion == "one") and not source.has_lesion_ids:
        remedy = "use --split paper and --per-lesion all"
        raise UserError(f"{source.title} does not say which images show the same lesion; {remedy}")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, not {seed}")
    if not allow_missing:
        _require_images(source, np.ones(len(source.ids), dtype=bool))
    rng = _generator(seed)
    pool = np.flatnonzero(source.present)
    try:
        if split == "official":
            return Manifest.from_source(source, _official_parts(source, pool, ratio, n_max, rng))
        if fold is not None:
            drawn = _fold_parts(source, pool, split, ratio, n_max, val_per_class, seed, fold)
        else:
            sizes = (val_per_class, test_per_class)
            drawn = _drawn_parts(source, pool, split, ratio, n_max, sizes, rng, per_lesion)
    except UserError as error:
        raise UserError("; ".join([str(error), *source.label_notes])) from error
    return Manifest.from_source(source, {part: pool[positions] for part, positions in drawn.items()})


def _drawn_parts(
    source: Source,
    pool: np.ndarray,
    split: str,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    sizes: tuple[int | None, int | None],
    rng: np.random.Generator,
    per_lesion: str,
) -> dict[str, np.ndarray]:
    """Return the places in `pool`, int64, of each part of a split that is drawn here; `sizes` are of val and test."""
    available = np.bincount(source.labels[pool], minlength=len(source.class_names))
    held_out = held_out_counts(available, *sizes, source.class_names)
    shares = [part for part, given in zip(PARTS[1:], sizes, strict=True) if given is None]
    draw: Callable[..., dict[str, np.ndarray]]
    if per_lesion == "one":
        draw = partial(_draw_one_per_lesion, whole=split == "lesion")
    elif split != "lesion":
        draw = _draw_by_image
    elif len(shares) == 2:
        draw = _draw_shares_by_lesion
    else:
        draw = partial(_draw_by_lesion, whole=shares)
    return draw(source, pool, ratio, n_max, held_out, rng)


def _fold_parts(
    source: Source,
    pool: np.ndarray,
    split: str,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    val_per_class: int | None,
    seed: int,
    fold: Fold,
) -> dict[str, np.ndarray]:
    """Return the places in `pool`, int64, of each part where test is a fold, and val and train are of the others."""
    labels, lesions, names = source.labels[pool], source.lesions[pool], source.class_names
    groups = lesions if split == "lesion" else source.ids[pool]
    tested = fold_numbers(labels, groups, fold.count, _generator(seed), names) == fold.number
    rest = np.flatnonzero(~tested)
    every, left = (np.bincount(own, minlength=len(names)) for own in (labels, labels[rest]))
    _require_rest(left, names)
    val, rng = np.maximum(left // 10, 1), _generator(seed, 1 + fold.number)
    if val_per_class is not None:
        _require_validation(left, val_per_class, names)
        val = np.full_like(left, val_per_class)
    none = np.zeros_like(val)
    met = val_per_class is not None
    validation, train = _val_and_train(
        labels[rest], groups[rest], every, ratio, n_max, (val, none), rng, names, met=met, remedy=_OF_FOLDS
    )
    if met:  # the surplus of whole groups is in no part
        validation = validation[split_by_image(labels[rest[validation]], val, none, none, rng, names)["train"]]
    return {"train": rest[train], "val": rest[validation], "test": np.flatnonzero(tested)}


def _val_and_train(
    labels: np.ndarray,
    groups: np.ndarray,
    available: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    aside: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    names: Sequence[str],
    *,
    met: bool = False,
    remedy: str = "add images, or use --split paper",
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, int64, of val, in whole groups, also those of several classes, and of train.

    Parameters
    ----------
    labels, groups : of the images that are not for test
    available : images of each class, those for test too, int [K]
    aside : val and test images of each class, int [K]
    met : whether val may rather have more than that than less
    remedy : what to do where a class has no group to give, for the message
    """
    in_val, none = draw_groups(labels, groups, aside[0], rng, names, met=met, remedy=remedy), np.zeros_like(aside[0])
    remaining = np.flatnonzero(~in_val)
    capacity = np.bincount(labels[remaining], minlength=len(names))
    counts = _training_counts(available, capacity, capacity, ratio, n_max, aside, names)
    drawn = split_by_image(labels[remaining], counts, none, none, rng, names)
    return np.flatnonzero(in_val), remaining[drawn["train"]]


def _generator(seed: int, *part: int) -> np.random.Generator:
    """Return the random numbers of a split, or of a part of it."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM, *part))))


def _require_rest(available: np.ndarray, names: Sequence[str]) -> None:
    """Check that the other folds have enough images of each class, int [K], for val and train."""
    few = np.flatnonzero(available < 2)
    if len(few):
        raise UserError(
            f"class {names[few[0]]!r} has {available[few[0]]} image(s) outside a fold, and val and train need 2; "
            "use more folds, or add images"
        )


def _require_validation(available: np.ndarray, val_per_class: int, names: Sequence[str]) -> None:
    """Check that the other folds have enough images of each class, int [K], for the validation images asked for."""
    few = np.flatnonzero(available <= val_per_class)
    if val_per_class < 1 or len(few):
        fewest = int(available.argmin())
        raise UserError(
            f"--val-per-class {val_per_class} is not possible: class {names[fewest]!r} has {available[fewest]} images "
            f"outside a fold, of which one is for training; give 1 to {available[fewest] - 1}, or more folds"
        )


def _require_sense(split: str, split_dir: Path | None, per_lesion: str, fold: Fold | None) -> None:
    """Refuse names that nobody knows, and choices that exclude each other."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if per_lesion not in PER_LESION:
        raise unknown("--per-lesion", per_lesion, PER_LESION)
    if fold is not None and (split_dir is not None or split == "official" or per_lesion == "one"):
        raise UserError(
            "--folds is for splits of all images that are drawn here: with --split paper or --split lesion, without "
            "--split-dir and --per-lesion one"
        )
    if per_lesion == "one" and (split_dir is not None or split == "official"):
        raise UserError("--per-lesion one is for splits that are drawn here: --split paper or --split lesion")
    if split_dir is not None and split != "paper":
        raise UserError(
            f"--split-dir holds splits by image; it goes with --split paper, not with {split!r} (a dataset that "
            "reads its labels there too takes them from --dataset-option split_dir=DIR)"
        )


def published_manifest(source: Source, split_dir: Path, ratio: float | str) -> Manifest:
    """Return the authors' split as it is, whether its images are present or not, and even with one in two parts.

    Raises
    ------
    UserError : a file missing or damaged, or names or labels other than the ground truth's; the message names it
    """
    split_dir = Path(split_dir)
    names = published_split(split_dir, ratio)
    positions = {part: positions_of(names[part], source.ids, part_path(split_dir, part, ratio)) for part in PARTS}
    dictionary = split_dir / "dic.npy"
    if dictionary.is_file():
        check_label_dictionary(dictionary, source.ids, source.labels, source.class_names)
    return Manifest.from_source(source, positions)


def restrict(manifest: Manifest, present_ids: np.ndarray) -> Manifest:
    """Return the manifest without the images that are not among `present_ids`, str [n].

    Raises
    ------
    UserError : a class is left without train images, or a part without any
    """
    kept = manifest.restricted_to(present_ids)
    for part in PARTS:
        if not len(kept.part(part)[0]):
            raise UserError(f"none of the {part} images of the split is present; get the images, or use another split")
    lost = np.setdiff1d(manifest.classes, kept.classes[kept.parts == "train"])
    if len(lost):
        raise UserError(
            f"none of the train images of class {str(lost[0])!r} is present; get them, or use another split"
        )
    return kept


def _sound(manifest: Manifest, split_dir: Path, names: Sequence[str]) -> Manifest:
    untaught = np.flatnonzero(manifest.class_counts("train", len(names)) == 0)
    if len(untaught):
        raise UserError(f"the split in {split_dir} has no train image of class {names[untaught[0]]!r}; add some")
    for pair in overlap(manifest).pairs:
        if pair.images:
            shared = np.intersect1d(manifest.part(pair.first)[0], manifest.part(pair.second)[0])
            raise UserError(
                f"the split in {split_dir} has {pair.images} image(s) in both {pair.first} and {pair.second} "
                f"(first: {shared[0]}); remove them from one"
            )
    return manifest


def _require_images(source: Source, needed: np.ndarray) -> None:
    missing = source.describe_missing(needed)
    if missing is not None:
        raise UserError(f"{source.title}: {missing}; get them, or use --allow-missing to do with those present")


def _draw_by_image(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    labels, names = source.labels[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    left = available - held_out[0] - held_out[1]
    counts = _training_counts(available, left, None, ratio, n_max, held_out, names)
    return split_by_image(labels, counts, *held_out, rng, names)


def _draw_by_lesion(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    *,
    whole: Collection[str],
) -> dict[str, np.ndarray]:
    labels, lesions, names = source.labels[pool], source.lesions[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    capacity = lesion_capacity(labels, lesions, len(names), *held_out, names)
    counts = _training_counts(available, capacity, capacity, ratio, n_max, held_out, names)
    return split_by_lesion(labels, lesions, counts, *held_out, rng, names, whole=whole)


def _draw_shares_by_lesion(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return the parts where val and test are shares of each class, which need not be met exactly."""
    labels, lesions, names = source.labels[pool], source.lesions[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    in_test = draw_groups(labels, lesions, held_out[1], rng, names, part="test", kept=2)
    rest = np.flatnonzero(~in_test)
    val, train = _val_and_train(labels[rest], lesions[rest], available, ratio, n_max, held_out, rng, names)
    return {"train": rest[train], "val": rest[val], "test": np.flatnonzero(in_test)}


def _draw_one_per_lesion(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    *,
    whole: bool,
) -> dict[str, np.ndarray]:
    labels, names = source.labels[pool], source.class_names
    drawn = hold_out(labels, source.lesions[pool], held_out, rng, names, whole=whole)
    available = np.bincount(labels, minlength=len(names))
    return drawn.with_train(_training_counts(available, drawn.capacity, drawn.capacity, ratio, n_max, held_out, names))


def _training_counts(
    available: np.ndarray,
    left: np.ndarray,
    capacity: np.ndarray | None,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    held_out: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
) -> np.ndarray:
    """Return the training images of each class, int64 [K]: by the long-tail rule, or all that val and test leave.

    Parameters
    ----------
    available, left : images of each class, and those that val and test leave, int [K]
    capacity : as for `longtail_counts`
    """
    if ratio == "natural":
        return _all_that_is_left(left, names)
    return longtail_counts(available, _or_auto(n_max), ratio, *held_out, class_names=names, capacity=capacity)


def _official_parts(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"] | None,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return the dataset's own parts, train thinned to the ratio; without a val part, a tenth of train is taken.

    Where lesions are known, that tenth is of whole ones, so that val shows none that is left in train.
    """
    if source.parts is None:
        raise UserError(f"{source.title} has no parts of its own; use --split paper or --split lesion")
    positions = {part: pool[source.parts[pool] == part] for part in PARTS}
    for part in ("train", "test"):
        if not len(positions[part]):
            raise UserError(f"{source.title} has no {part} part; use --split paper or --split lesion")
    train, val = positions["train"], positions["val"]
    available = np.bincount(source.labels[train], minlength=len(source.class_names))
    _require_taught(source, available, val_is_taken=not len(val))
    if len(val):
        none = np.zeros_like(available)
        drawn = _draw_by_image(source, train, ratio, n_max, (none, none), rng)
    else:
        held_out = held_out_counts(available, None, 0, source.class_names)
        if source.has_lesion_ids:
            _require_val_lesions(source, train, held_out[0])
        draw = partial(_draw_by_lesion, whole=["val"]) if source.has_lesion_ids else _draw_by_image
        drawn = draw(source, train, ratio, n_max, held_out, rng)
        val = train[drawn["val"]]
    return {"train": train[drawn["train"]], "val": val, "test": positions["test"]}


def _require_taught(source: Source, available: np.ndarray, *, val_is_taken: bool) -> None:
    """Check that the train part has enough images of each class, int [K], also where val is taken from it."""
    least, why = (3, ", for val is taken from it") if val_is_taken else (1, "")
    few = np.flatnonzero(available < least)
    if len(few):
        name, count = source.class_names[few[0]], available[few[0]]
        raise UserError(
            f"the train part of {source.title} has {count} images of class {name!r} and needs {least}{why}; "
            "put more there, or use another --split"
        )


def _require_val_lesions(source: Source, train: np.ndarray, val: np.ndarray) -> None:
    """Check that whole lesions at `train` can give each class its val images, int [K], and leave some of it."""
    names = source.class_names
    what = f"{source.title} has no val part, and whole lesions of its train part cannot give one"
    remedy = "give it val images, or use another --split"
    try:
        capacity = lesion_capacity(source.labels[train], source.lesions[train], len(names), val, 0, names)
    except UserError as error:
        raise UserError(f"{what}: {error}; {remedy}") from error
    if not capacity.all():
        raise UserError(f"{what}: no image of class {names[capacity.argmin()]!r} would be left in train; {remedy}")


def _or_auto(n_max: int | Literal["auto"] | None) -> int | Literal["auto"]:
    return "auto" if n_max is None else n_max


def _all_that_is_left(counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the training images of each class at the natural ratio, having checked that there are some."""
    without = np.flatnonzero(counts < 1)
    if len(without):
        name = names[without[0]]
        raise UserError(f"class {name!r} has no image left to train on; use fewer val or test images a class")
    return counts


SPLITS = ("paper", "lesion", "official")
PER_LESION = ("all", "one")
