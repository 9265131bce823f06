"""Fetch what is missing of a whole dataset: its publishers' files, and single images of the ISIC Archive."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltbench.datasets import registry
from ltbench.datasets.base import Source
from ltbench.datasets.download.isic_cli import commands, fetch_images
from ltbench.datasets.download.transfer import fetch
from ltbench.datasets.loading import create_source
from ltbench.datasets.sources._image_files import FileSource
from ltbench.errors import UserError


def fetch_dataset(
    name: str,
    root: Path,
    *,
    options: Mapping[str, Any] | None = None,
    split_dir: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Fetch what a folder lacks of a dataset, and print what was, or what would be, fetched.

    Parameters
    ----------
    name : registered name
    root : folder to fill
    options, split_dir : of the dataset, as for `create_source`
    dry_run : fetch nothing

    Raises
    ------
    UserError : an unknown option, a download that fails (see `transfer.fetch`), or images that are missing afterwards
    """
    dataset, options = registry.get(name), dict(options or {})

    def missing() -> dict[str, str] | None:
        """Return the images that are missing, by id, and where they are expected; None: it cannot be told yet."""
        try:
            source = create_source(name, root, options, split_dir=split_dir)
        except UserError:
            return None
        return _missing(source) if isinstance(source, FileSource) else None

    lacking = missing()
    if lacking is None or any(not _of_archive(dataset, file) for file in lacking.values()):
        for remote in dataset.remotes(**options):
            if dry_run:
                print(f"would fetch {remote.url} as {root / remote.name}")
            else:
                print(f"there: {fetch(remote, root)}", flush=True)
    elif not lacking:
        print(f"all images are there, in {root}")
    if dataset.archive_folder and dry_run and missing() is None:
        folder = root / dataset.archive_folder
        print(f"would then fetch the images of the ISIC Archive that the tables name, to {folder}, by isic-cli")
    elif dataset.archive_folder:
        source = create_source(name, root, options, split_dir=split_dir)
        if isinstance(source, FileSource):
            _fetch_archive_images(dataset, _missing(source), root, dry_run)
    lacking = None if dry_run else missing()
    if lacking:
        raise UserError(
            f"{len(lacking)} images are still missing in {root} (first: {next(iter(lacking.values()))}); "
            f"run the same command again, or get them from {dataset.website}"
        )


def _missing(source: FileSource) -> dict[str, str]:
    absent = ~source.present
    return dict(zip(source.ids[absent].tolist(), source.files[absent].tolist(), strict=True))


def _of_archive(dataset: type[Source], file: str) -> bool:
    return bool(dataset.archive_folder) and file.startswith(f"{dataset.archive_folder}/")


def _fetch_archive_images(dataset: type[Source], missing: Mapping[str, str], root: Path, dry_run: bool) -> None:
    """Fetch the missing images of the archive's folder from the ISIC Archive, by the archive's own program."""
    folder = root / dataset.archive_folder
    wanted = [image for image, file in missing.items() if _of_archive(dataset, file)]
    print(f"{len(wanted)} images of the ISIC Archive are missing in {folder}", flush=True)
    if dry_run:
        print("\n".join(map(shlex.join, commands(wanted, folder))))
    elif wanted:
        fetch_images(wanted, folder)
