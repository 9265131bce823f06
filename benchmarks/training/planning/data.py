"""The data of a plan: its datasets under the splits of its trials, and what records say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltbench.benchmarks.analysis.metrics import frequency_groups
from ltbench.benchmarks.analysis.record_files.description import DataDescription, SharedImages
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.request import Ratio, Request
from ltbench.datasets.images.augmentation import stored_size
from ltbench.datasets.loading import SplitDataset, largest_common_n_max, load, require_common_test
from ltbench.datasets.splits.folds import Fold
from ltbench.errors import UserError


def planned_datasets(
    request: Request, name: str, root: Path | None, protocol: Protocol
) -> tuple[Sequence[SplitDataset], Mapping[int, Sequence[SplitDataset]]]:
    """Return the dataset at each ratio under the split of trial 0 and, where trials draw their own, by trial.

    Parameters
    ----------
    name, root : of the dataset, resolved
    protocol : says the size of its images, and whether splits vary

    Raises
    ------
    UserError : anything about names, files or counts, or splits that cannot vary
    """
    published = request.split_dir is not None or request.split == "official"
    first = [] if published and protocol.own_splits else _drawn(request, name, root, protocol, 0)
    if not protocol.own_splits:
        return first, {}
    if published or first[0].split == "official":  # the dataset's own default
        option = "--folds" if protocol.folds else "--vary-split"
        raise UserError(f"{option} is for splits that are drawn here: --split paper or --split lesion")
    others = [trial for trial in request.trial_numbers if trial]
    return first, {0: first} | {trial: _drawn(request, name, root, protocol, trial) for trial in others}


def _drawn(request: Request, name: str, root: Path | None, protocol: Protocol, trial: int) -> Sequence[SplitDataset]:
    """Return the dataset at each ratio under the split that the seed of a trial draws, or whose test is its fold."""
    fold = Fold(trial, protocol.folds) if protocol.folds else None

    def split(ratio: Ratio | None, n_max: Any = request.n_max) -> SplitDataset:
        return load(
            name,
            root=root,
            ratio=ratio,
            image_size=protocol.image_size,
            split=request.split,
            split_dir=request.split_dir,
            n_max=n_max,
            val_per_class=request.val_per_class,
            test_per_class=request.test_per_class,
            seed=request.seed + (0 if fold else trial),
            allow_missing=request.allow_missing,
            per_lesion=request.per_lesion,
            fold=fold,
            cache=request.out / "cache" / "images",
            options=request.dataset_options,
        )

    datasets = [split(ratio) for ratio in request.ratios or (None,)]
    if request.common_test:
        automatic = [dataset for dataset in datasets if dataset.n_max == "auto"]
        if automatic:
            common = largest_common_n_max(automatic)
            datasets = [split(each.ratio, common) if each.n_max == "auto" else each for each in datasets]
        require_common_test(datasets)
    return datasets


def described(dataset: SplitDataset, pixels: str = "", *, varied_from: SplitDataset | None = None) -> DataDescription:
    """Return what records say of the data.

    Parameters
    ----------
    pixels : SHA-256 of the pixels of the split's images; empty where they are not decoded yet
    varied_from : the dataset under the split of trial 0, where each trial draws its own: what of a split may differ
        between trials but is one thing of a row, ratio and groups of natural data, is that of this split
    """
    first = varied_from or dataset
    source, counts = dataset.source, dataset.class_counts.tolist()
    groups = source.groups or frequency_groups(first.class_counts.tolist())
    return DataDescription(
        dataset=source.name,
        variant=source.variant,
        title=source.title,
        licence=source.licence,
        citation=source.citation,
        split=dataset.split,
        ratio=float(first.ratio),
        natural=dataset.natural,
        class_names=tuple(source.class_names),
        class_counts=tuple(counts),
        groups={name: tuple(members) for name, members in groups.items()},
        overlap={
            f"{pair.first}/{pair.second}": SharedImages(pair.images, pair.lesion_images, pair.total)
            for pair in dataset.overlap.pairs
        },
        special_classes=source.special_classes,
        notes=tuple(dataset.notes),
        group_name=source.group_name,
        pixels=pixels,
        varied_from=None if varied_from is None else varied_from.manifest.digest,
        stored_size=stored_size(dataset.image_size),
    )
