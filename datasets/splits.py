"""Splits of a source: drawn by image or by lesion, the dataset's own parts, or read from the authors' files.

Training images follow the long-tail rule at a ratio, or are all that is left at the `natural` one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.longtail import (
    PARTS,
    held_out_counts,
    lesion_capacity,
    longtail_counts,
    split_by_image,
    split_by_lesion,
)
from ltbench.datasets.manifest import Manifest, overlap
from ltbench.datasets.published_splits import check_label_dictionary, part_path, positions_of, published_split
from ltbench.errors import UserError
from ltbench.registry import unknown

NATURAL = "natural"
"""The ratio of data as they are."""

# Sets the stream of splits apart from every other one that is drawn from the same seed.
_STREAM = int.from_bytes(b"split", "little")


def make_split(
    source: Source,
    *,
    split: str,
    split_dir: Path | None,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"],
    val_per_class: int | None,
    test_per_class: int | None,
    seed: int,
    allow_missing: bool,
) -> Manifest:
    """Return the split of a source: the authors' own where `split_dir` is given, else one drawn with `seed`.

    With `allow_missing`, a split is drawn from the images present alone, and the authors' is returned whole:
    `restrict` drops what is missing.

    Parameters
    ----------
    split : "paper" (by image), "lesion" (no lesion in two parts, same counts), or "official" (the dataset's own parts)
    ratio, n_max : as for `longtail_counts`; "natural": all images that val and test leave
    val_per_class, test_per_class : as for `held_out_counts`; not of the authors' files and of official parts

    Raises
    ------
    UserError : unknown split; seed below 0; images missing without `allow_missing`; counts that the data cannot give;
        split files missing, damaged, with one image in two parts, or not of this dataset
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if split_dir is not None:
        if split != "paper":
            raise UserError(
                f"--split-dir holds splits by image; it goes with --split paper, not with {split!r} (a dataset that "
                "reads its labels there too takes them from --dataset-option split_dir=DIR)"
            )
        manifest = _sound(published_manifest(source, split_dir, ratio), split_dir, source.class_names)
        if not allow_missing:
            _require_images(source, np.isin(source.ids, manifest.ids))
        return manifest
    if split == "lesion" and not source.has_lesion_ids:
        raise UserError(f"{source.title} does not tell which images show the same lesion; use --split paper")
    if seed < 0:
        raise UserError(f"seed must be 0 or more, not {seed}")
    if not allow_missing:
        _require_images(source, np.ones(len(source.ids), dtype=bool))
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM,))))
    pool = np.flatnonzero(source.present)
    if split == "official":
        return Manifest.from_source(source, _official_parts(source, pool, ratio, n_max, rng))
    available = np.bincount(source.labels[pool], minlength=len(source.class_names))
    held_out = held_out_counts(available, val_per_class, test_per_class, source.class_names)
    draw = _draw_by_lesion if split == "lesion" else _draw_by_image
    drawn = draw(source, pool, ratio, n_max, held_out, rng)
    return Manifest.from_source(source, {part: pool[positions] for part, positions in drawn.items()})


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
    n_max: int | Literal["auto"],
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    labels, names = source.labels[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    if ratio == NATURAL:
        counts = _all_that_is_left(available - held_out[0] - held_out[1], names)
    else:
        counts = longtail_counts(available, n_max, ratio, *held_out, class_names=names)
    return split_by_image(labels, counts, *held_out, rng, names)


def _draw_by_lesion(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"],
    held_out: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    labels, lesions, names = source.labels[pool], source.lesions[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    capacity = lesion_capacity(labels, lesions, len(names), *held_out, names)
    if ratio == NATURAL:
        counts = _all_that_is_left(capacity, names)
    else:
        counts = longtail_counts(available, n_max, ratio, *held_out, class_names=names, capacity=capacity)
    return split_by_lesion(labels, lesions, counts, *held_out, rng, names)


def _official_parts(
    source: Source,
    pool: np.ndarray,
    ratio: float | Literal["natural"],
    n_max: int | Literal["auto"],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return the dataset's own parts, train thinned to the ratio; without a val part, a tenth of train is taken."""
    if source.parts is None:
        raise UserError(f"{source.title} has no parts of its own; use --split paper or --split lesion")
    labels, own, names = source.labels[pool], source.parts[pool], source.class_names
    positions = {part: np.flatnonzero(own == part) for part in PARTS}
    for part in ("train", "test"):
        if not len(positions[part]):
            raise UserError(f"{source.title} has no {part} part; use --split paper or --split lesion")
    train = positions["train"]
    available = np.bincount(labels[train], minlength=len(names))
    held_out = np.zeros_like(available)
    if not len(positions["val"]):
        held_out, _ = held_out_counts(available, None, 0, names)
    left = _all_that_is_left(available - held_out, names)
    counts = left if ratio == NATURAL else longtail_counts(available, n_max, ratio, held_out, 0, class_names=names)
    drawn = split_by_image(labels[train], counts, held_out, 0, rng, names)
    val = positions["val"] if len(positions["val"]) else train[drawn["val"]]
    return {"train": pool[train[drawn["train"]]], "val": pool[val], "test": pool[positions["test"]]}


def _all_that_is_left(counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the training images of each class at the natural ratio, having checked that there are some."""
    without = np.flatnonzero(counts < 1)
    if len(without):
        name = names[without[0]]
        raise UserError(f"class {name!r} has no image left to train on; use fewer val or test images a class")
    return counts


SPLITS = ("paper", "lesion", "official")
