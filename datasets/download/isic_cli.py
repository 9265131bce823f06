"""Images of the ISIC Archive through the archive's own program, `isic` of the package `isic-cli`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from ltbench.errors import UserError

_PROGRAM = "isic"
_BATCH = 50  # ids a query: the archive takes a query as part of an address
_NOTES = ("attribution.txt", "metadata.csv")


def commands(ids: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """Yield the command lines that fetch images of the archive into a folder, a batch each."""
    for start in range(0, len(ids), _BATCH):
        query = " OR ".join(f"isic_id:{image}" for image in ids[start : start + _BATCH])
        yield [_PROGRAM, "image", "download", "--search", query, str(folder)]


def fetch_images(ids: Sequence[str], folder: Path) -> None:
    """Fetch images of the archive into a folder; what a killed run has fetched is not asked for again.

    Attributions and metadata of each batch are kept under the name of its first image.

    Raises
    ------
    UserError : the program is not installed, or fails
    """
    if shutil.which(_PROGRAM) is None:
        raise UserError(
            f"{len(ids)} images of the ISIC Archive are missing in {folder}, and its program is not installed: "
            "pip install isic-cli, then run the same command again"
        )
    for number, command in enumerate(commands(ids, folder)):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(command[:3])} failed with code {done.returncode}; run the same command again")
        for name in _NOTES:
            if (folder / name).is_file():
                stem, _, suffix = name.partition(".")
                (folder / name).replace(folder / f"{stem}-{ids[number * _BATCH]}.{suffix}")
