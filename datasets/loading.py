"""One split of one dataset, ready to train on: labels, manifest, overlap, and images on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ltbench.datasets import registry
from ltbench.datasets.base import NATURAL, Source
from ltbench.datasets.images.augmentation import stored_size
from ltbench.datasets.images.store import ImageStore, StoreBuilder
from ltbench.datasets.splits.draw import make_split, restrict
from ltbench.datasets.splits.folds import Fold
from ltbench.datasets.splits.longtail import PARTS, lesion_codes
from ltbench.datasets.splits.manifest import Manifest, Overlap, overlap
from ltbench.datasets.splits.present_classes import renumbered, without_absent_classes
from ltbench.datasets.splits.unused import unused_line
from ltbench.errors import UserError, counted
from ltbench.registry import unknown

if TYPE_CHECKING:
    import torch

    from ltbench.datasets.images.part import ImagePart

AUTO = "isic2019"
"""What the name `auto` means where its folder is found."""
EMBEDDED = "synthetic"
"""What it means elsewhere."""
_NAMED = 100  # classes of which each is named
_ONE = "one image of each lesion or group in validation and test"


@dataclass(frozen=True)
class SplitDataset:
    """A dataset under one split.

    Attributes
    ----------
    source : all labelled images
    manifest : the split, of images that are present
    declared : the split before missing images were dropped
    split : `paper`, `lesion`, `official` or `published`
    ratio : imbalance ratio that was asked for; of natural data, that of the training images
    natural : whether the data are as they are, not thinned to a ratio
    n_max : training images of the largest class as asked for, or `auto`; None where nothing is thinned here
    val_per_class, test_per_class : images of validation and test; None where the split is not drawn here
    per_lesion : how many images of a lesion validation and test may have, `all` or `one`
    image_size : of the network, pixels; images are stored one seventh larger
    cache : folder of image stores
    """

    source: Source
    manifest: Manifest
    declared: Manifest
    split: str
    ratio: float
    image_size: int
    cache: Path
    natural: bool = False
    n_max: int | Literal["auto"] | None = None
    val_per_class: int | None = None
    test_per_class: int | None = None
    per_lesion: str = "all"
    notes: tuple[str, ...] = field(default=())

    @property
    def class_counts(self) -> np.ndarray:
        """Training images by class id, int64 [K]."""
        return self.manifest.class_counts("train", len(self.source.class_names))

    @cached_property
    def overlap(self) -> Overlap:
        """What the parts of the declared split share."""
        return overlap(self.declared, lesions_known=self.source.has_lesion_ids)

    @property
    def store_builder(self) -> StoreBuilder:
        """What decodes its images, and knows where."""
        return StoreBuilder(self.source, stored_size(self.image_size), self.cache)

    def store(self, *, workers: int = 1, quiet: bool = True, trust: bool = True) -> ImageStore:
        """Return the store of the split's images, decoding what is missing; see `StoreBuilder.build`."""
        position = {image_id: row for row, image_id in enumerate(self.source.ids.tolist())}
        positions = np.array([position[image_id] for image_id in self.manifest.ids.tolist()], dtype=np.int64)
        return self.store_builder.build(np.sort(positions), workers=workers, quiet=quiet, trust=trust)

    def part(self, name: Literal["train", "val", "test"], device: torch.device | str = "cpu") -> ImagePart:
        """Return the images and labels of one part."""
        import torch

        from ltbench.datasets.images.part import ImagePart

        ids, labels = self.manifest.part(name)
        return ImagePart(self.store(), ids, labels, torch.device(device))

    def lines(self) -> list[str]:
        """Return a description: images, counts, images in no part, missing images, lesions of two labels, overlap."""
        sizes = ", ".join(f"{part} {len(self.manifest.part(part)[0])}" for part in PARTS)
        counts = _named_counts(self.source.class_names, self.class_counts.tolist())
        whole = len(self.manifest.ids) == len(self.declared.ids)
        shared = [line if whole else f"as named, {line}" for line in self.overlap.lines(self.source.group_name)]
        unused = unused_line(self.source, self.manifest, self.split, self.per_lesion)
        mixed = _mixed_line(self.source, self.manifest if self.split == "lesion" else None)
        doubts = [line for line in (unused, *self.notes, mixed) if line]
        return [f"images: {sizes}", f"training images: {counts}", *doubts, *shared]


def _named_counts(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return the images of each class as text; of many classes those of the largest and the smallest."""
    named = [f"{name} {count}" for name, count in zip(names, counts, strict=True)]
    if len(named) <= _NAMED:
        return ", ".join(named)
    order = np.argsort(-np.asarray(counts), kind="stable").tolist()
    shown = [named[place] for place in (*order[:3], *order[-3:])]
    return f"{len(named)} classes, {', '.join(shown[:3])}, ..., {', '.join(shown[3:])}"


def resolve(name: str, root: Path | None) -> tuple[str, Path | None]:
    """Return the dataset and folder that a name and `--data-root` mean.

    `auto` is ISIC-2019-LT where its tables are found (`root`, else $LTBENCH_DATA, else ./data), otherwise the
    embedded synthetic dataset.

    Raises
    ------
    UserError : unknown name, a `root` that holds no known dataset, or $LTBENCH_DATA is set and no folder
    """
    if name != "auto" and name not in registry.available():
        raise unknown("dataset", name, ["auto", *registry.available()])
    if root is not None and not root.is_dir():
        raise UserError(f"--data-root {root} is not a folder")
    if name != "auto" and not registry.get(name).needs_folder:
        return name, None
    candidate = root or _usual_folder()
    if name != "auto":
        if not candidate.is_dir():
            raise UserError(f"dataset {name} needs its folder: give --data-root or set LTBENCH_DATA")
        return name, candidate
    if registry.get(AUTO).found_at(candidate):
        return AUTO, candidate
    if root is not None:
        raise UserError(f"--data-root {root} holds no dataset that is known; name it with --dataset")
    return EMBEDDED, None


def _usual_folder() -> Path:
    """Return where data are looked for without `--data-root`, having checked what the environment says."""
    named = os.environ.get("LTBENCH_DATA")
    if named and not Path(named).is_dir():
        raise UserError(f"$LTBENCH_DATA is {named}, which is not a folder; correct it, unset it, or give --data-root")
    return Path(named or "data")


def _of_those_there(declared: Manifest, source: Source) -> Manifest:
    return restrict(renumbered(declared, source.class_names), source.ids[source.present])


def load(
    name: str,
    *,
    root: Path | None = None,
    ratio: float | Literal["natural"] | None = None,
    image_size: int = 224,
    split: str | None = None,
    split_dir: Path | None = None,
    n_max: int | Literal["auto"] | None = None,
    val_per_class: int | None = None,
    test_per_class: int | None = None,
    seed: int = 0,
    allow_missing: bool = False,
    cache: Path = Path("results/cache/images"),
    per_lesion: str = "all",
    fold: Fold | None = None,
    options: Mapping[str, Any] | None = None,
) -> SplitDataset:
    """Return a dataset under a long-tailed split; no image is opened yet. None stands for the dataset's own.

    Parameters
    ----------
    name, root : a registered dataset, or `auto`, and its folder
    ratio : at least 1, or `natural`: the data as they are
    split, split_dir : `paper` (by image), `lesion` (no lesion in two parts), `official`; or a folder of split files
    n_max, val_per_class, test_per_class : images of the largest class, or `auto`, all there are; of each class
    allow_missing : use the images that are there
    per_lesion : `all` images of a lesion may be in validation and test, or `one`
    fold : whose images are tested, of a partition of all images, by lesion where lesions are known
    options : further arguments of the dataset, e.g. `{"difficulty": "rare-hard"}` of `synthetic`

    Raises
    ------
    UserError : anything about names, files or counts that the user can fix
    """
    source = create_source(*resolve(name, root), options or {}, split_dir=split_dir, image_size=image_size)
    request = split_request(source, split, split_dir, ratio, n_max, val_per_class, test_per_class)
    if fold is not None:
        shares = {"val_per_class": val_per_class, "test_per_class": None}  # whatever the source's numbers are
        request |= {"split": _split_of_folds(source, split, request["split"]), **shares}
    there = without_absent_classes(source) if allow_missing else source
    whole = there if split_dir is None else source
    declared = make_split(whole, **request, seed=seed, allow_missing=allow_missing, per_lesion=per_lesion, fold=fold)
    manifest = declared if split_dir is None else _of_those_there(declared, there)
    drawn = request if split_dir is None and request["split"] != "official" else {}
    return SplitDataset(
        source=there,
        manifest=manifest,
        declared=declared,
        split="published" if split_dir is not None else request["split"],
        ratio=_measured_ratio(declared) if request["ratio"] == NATURAL else request["ratio"],
        image_size=image_size,
        cache=Path(cache),
        natural=request["ratio"] == NATURAL,
        n_max=request["n_max"],
        val_per_class=drawn.get("val_per_class"),
        test_per_class=drawn.get("test_per_class"),
        per_lesion=per_lesion,
        notes=(*[_ONE] * (per_lesion == "one"), *_notes(source, there, declared, manifest)),
    )


def _mixed_line(source: Source, by_lesion: Manifest | None) -> str | None:
    """Return how many lesions have present images of different labels, and those of the first; None where none has.

    Parameters
    ----------
    by_lesion : a split of whole lesions, of which it is said where such lesions are in training alone
    """
    there = np.flatnonzero(source.present)
    codes, mixed = lesion_codes(source.labels[there], source.lesions[there])
    if not mixed.any():
        return None
    shown = there[codes == mixed.argmax()]
    _, first = np.unique(source.labels[shown], return_index=True)
    named = ", ".join(f"{source.ids[each]} {source.class_names[source.labels[each]]}" for each in shown[first])
    line = f"different labels in one {source.group_name}: {mixed.sum()} (first: {named})"
    if by_lesion is None:
        return line
    held_out = by_lesion.lesions[by_lesion.parts != "train"]
    is_held_out = np.isin(held_out, np.unique(source.lesions[there])[mixed]).any()
    return line if is_held_out else f"{line}; none of these {source.group_name}s is in validation or test"


def largest_common_n_max(datasets: Sequence[SplitDataset]) -> int:
    """Return the training images of the largest class that all of these ratios can have."""
    return min(int(dataset.class_counts.max()) for dataset in datasets)


def require_common_test(datasets: Sequence[SplitDataset]) -> None:
    """Check that nothing but the ratio differs: one validation and one test set, and nested training sets.

    Raises
    ------
    UserError : they differ, as the published splits do
    """
    first, *others = sorted(datasets, key=lambda dataset: dataset.ratio)
    for other in others:
        ratios = f"ratio {first.ratio:g} and ratio {other.ratio:g}"
        for part in ("val", "test"):
            if not np.array_equal(first.manifest.part(part)[0], other.manifest.part(part)[0]):
                raise UserError(f"--common-test: the {part} images of {ratios} differ; use a split that is drawn here")
        if not np.isin(other.manifest.part("train")[0], first.manifest.part("train")[0]).all():
            raise UserError(
                f"--common-test: training images of {ratios} are not nested; use a split that is drawn here, "
                "at numbers for --ratio and with one --n-max"
            )
        first = other


def _notes(source: Source, there: Source, declared: Manifest, manifest: Manifest) -> tuple[str, ...]:
    """Return what a reader of the record must know of the images, and of those that are not there.

    Parameters
    ----------
    there : the source without the classes of which no image is there
    """
    missing = int((~source.present).sum())
    notes = list(source.notes)
    if missing:
        first = source.ids[~source.present][0]
        notes.append(f"missing images: {missing} of {len(source.ids)} (first: {first}); used what is there")
    kept = set(there.class_names)
    absent = [name for name in source.class_names if name not in kept]
    if absent:
        notes.append(f"classes left out, of which no image is there: {', '.join(absent)}")
    if len(manifest.ids) < len(declared.ids):
        named = ", ".join(map(str, declared.class_counts("train", len(source.class_names))))
        names = f"the split names {counted(len(declared.ids), 'image')} (training: {named})"
        notes.append(f"{names}, {len(manifest.ids)} of them are there")
    for part in ("val", "test"):
        counts = manifest.class_counts(part, len(there.class_names))
        lacking = [name for name, count in zip(there.class_names, counts, strict=True) if not count]
        if counts.any() and lacking:
            notes.append(f"{part} has no image of {', '.join(lacking)}")
    notes += _shared_patients(there, manifest)
    unknown_lesions = int((declared.lesions == declared.ids).sum())
    if source.has_lesion_ids and unknown_lesions:
        group = source.group_name
        notes.append(
            f"{group} unknown for {counted(unknown_lesions, 'image')} of the split; each counts as a {group} by itself"
        )
    return tuple(notes)


def _shared_patients(source: Source, manifest: Manifest) -> list[str]:
    """Return a line for patients with images for training and for test, where they are not what groups images."""
    if source.patients is None:
        return []
    patient_of = dict(zip(source.ids.tolist(), source.patients.tolist(), strict=True))
    train, test = ({patient_of[own] for own in manifest.part(part)[0].tolist()} - {""} for part in ("train", "test"))
    shared = len(train & test)
    return [f"{shared} of {counted(len(test), 'patient')} of test have images in training, too"] if shared else []


def split_request(
    source: Source,
    split: str | None,
    split_dir: Path | None,
    ratio: float | Literal["natural"] | None,
    n_max: int | Literal["auto"] | None,
    val_per_class: int | None,
    test_per_class: int | None,
) -> dict[str, Any]:
    """Return the arguments of `make_split` for what was asked of a source; None stands for the source's default.

    Raises
    ------
    UserError : numbers that would have no effect
    """
    ratio = source.default_ratio if ratio is None else ratio
    split = ("paper" if split_dir else source.default_split) if split is None else split
    numbers = {"--n-max": n_max, "--val-per-class": val_per_class, "--test-per-class": test_per_class}
    given = {name for name, value in numbers.items() if value is not None}
    for applies, idle, where in (
        (split_dir is not None, numbers.keys(), "with --split-dir, which holds a whole split"),
        (split == "official", numbers.keys() - {"--n-max"}, "at --split official, which has parts of its own"),
        (ratio == NATURAL, {"--n-max"}, "at --ratio natural, which takes the data as they are"),
    ):
        without_effect = sorted(given & idle)
        if applies and without_effect:
            raise UserError(f"{' and '.join(without_effect)} would have no effect {where}; leave that out")
    thinned = split_dir is None and ratio != NATURAL
    return {
        "split": split,
        "split_dir": split_dir,
        "ratio": ratio,
        "n_max": (source.default_n_max if n_max is None else n_max) if thinned else None,
        "val_per_class": source.default_val_per_class if val_per_class is None else val_per_class,
        "test_per_class": source.default_test_per_class if test_per_class is None else test_per_class,
    }


def _split_of_folds(source: Source, asked: str | None, split: str) -> str:
    """Return how folds are drawn: by lesion where lesions are known.

    Parameters
    ----------
    asked, split : what was asked for, and what that means

    Raises
    ------
    UserError : by image was asked for all the same
    """
    if not source.has_lesion_ids or split != "paper":
        return split
    if asked is not None:
        group = source.group_name
        raise UserError(f"--folds keeps the images of a {group} together; use --split lesion, not --split paper")
    return "lesion"


def _measured_ratio(manifest: Manifest) -> float:
    counts = manifest.class_counts("train")
    return round(float(counts.max() / counts[counts > 0].min()), 2)


def create_source(
    name: str,
    root: Path | None,
    options: Mapping[str, Any],
    *,
    split_dir: Path | None = None,
    image_size: int | None = None,
) -> Source:
    """Return a dataset with its options; one that has an option `split_dir` or `image_size` is given that too.

    The option `split_dir` names the folder for the dataset alone, so that another split can be drawn.

    Raises
    ------
    UserError : an unknown option, or what the dataset itself refuses
    """
    dataset = registry.get(name)
    declared = {field.name for field in fields(dataset.Options)}
    request = {"split_dir": split_dir, "image_size": image_size}
    return dataset(root, **{**{key: value for key, value in request.items() if key in declared}, **options})
