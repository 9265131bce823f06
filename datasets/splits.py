"""Splits of a source: drawn by the long-tail rule, by image or by lesion, or read from the authors' files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.longtail import PARTS, lesion_capacity, longtail_counts, split_by_image, split_by_lesion
from ltbench.datasets.manifest import Manifest, overlap
from ltbench.datasets.published_splits import check_label_dictionary, part_path, positions_of, published_split
from ltbench.errors import UserError
from ltbench.registry import unknown

# Sets the stream of splits apart from every other one that is drawn from the same seed.
_STREAM = int.from_bytes(b"split", "little")


def make_split(
    source: Source,
    *,
    split: str,
    split_dir: Path | None,
    ratio: float,
    n_max: int | Literal["auto"],
    val_per_class: int,
    test_per_class: int,
    seed: int,
    allow_missing: bool,
) -> Manifest:
    """Return the split of a source: the authors' own where `split_dir` is given, else one drawn with `seed`.

    `split` is "paper" (by image) or "lesion" (no lesion in two parts, same counts); the rule's numbers are as for
    `longtail_counts`, and the authors' files have their own. With `allow_missing`, a split is drawn from the images
    present alone, and the authors' is returned whole: `restrict` drops what is missing.

    Raises
    ------
    UserError : unknown split; seed below 0; images missing without `allow_missing`; counts that the data cannot give;
        split files missing, damaged, with one image in two parts, or not of this dataset
    """
    if split not in _DRAWN:
        raise unknown("split", split, _DRAWN)
    if split_dir is not None:
        if split != "paper":
            raise UserError(f"--split-dir holds splits by image; it goes with --split paper, not with {split!r}")
        manifest = _sound(published_manifest(source, split_dir, ratio), split_dir)
        if not allow_missing:
            _require_images(source, np.isin(source.ids, manifest.ids))
        return manifest
    if seed < 0:
        raise UserError(f"seed must be 0 or more, not {seed}")
    if not allow_missing:
        _require_images(source, np.ones(len(source.ids), dtype=bool))
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_STREAM,))))
    pool = np.flatnonzero(source.present)
    drawn = _DRAWN[split](source, pool, ratio, n_max, (val_per_class, test_per_class), rng)
    return Manifest.from_source(source, {part: pool[positions] for part, positions in drawn.items()})


def published_manifest(source: Source, split_dir: Path, ratio: float) -> Manifest:
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


def _sound(manifest: Manifest, split_dir: Path) -> Manifest:
    for pair in overlap(manifest).pairs:
        if pair.images:
            shared = np.intersect1d(manifest.part(pair.first)[0], manifest.part(pair.second)[0])
            raise UserError(
                f"the split in {split_dir} has {pair.images} image(s) in both {pair.first} and {pair.second} "
                f"(first: {shared[0]}); remove them from one"
            )
    return manifest


def _require_images(source: Source, needed: np.ndarray) -> None:
    missing = source.ids[needed & ~source.present]
    if len(missing):
        where = "" if source.root is None else f" under {source.root}"
        raise UserError(
            f"{source.title}: {len(missing)} of {needed.sum()} images missing{where} (first: {missing[0]}); "
            "get them, or use --allow-missing to do with those present"
        )


def _draw_by_image(
    source: Source,
    pool: np.ndarray,
    ratio: float,
    n_max: int | Literal["auto"],
    held_out: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    labels = source.labels[pool]
    available = np.bincount(labels, minlength=len(source.class_names))
    counts = longtail_counts(available, n_max, ratio, *held_out, class_names=source.class_names)
    return split_by_image(labels, counts, *held_out, rng, source.class_names)


def _draw_by_lesion(
    source: Source,
    pool: np.ndarray,
    ratio: float,
    n_max: int | Literal["auto"],
    held_out: tuple[int, int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    labels, lesions, names = source.labels[pool], source.lesions[pool], source.class_names
    available = np.bincount(labels, minlength=len(names))
    capacity = lesion_capacity(labels, lesions, len(names), *held_out, names)
    counts = longtail_counts(available, n_max, ratio, *held_out, class_names=names, capacity=capacity)
    return split_by_lesion(labels, lesions, counts, *held_out, rng, names)


_DRAWN: dict[str, Callable[..., dict[str, np.ndarray]]] = {"paper": _draw_by_image, "lesion": _draw_by_lesion}
