"""Images to be predicted: which they are, and their pixels, decoded in threads, in order, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltbench.datasets.images.decoding import SUFFIXES
from ltbench.datasets.tables import read_table
from ltbench.errors import UserError
from ltbench.processes import available_cores, in_threads
from ltbench.registry import unknown


@dataclass(frozen=True)
class ImageList:
    """Images in order.

    Attributes
    ----------
    names : as the user wrote them
    paths : of the files
    labels : class id of each, -1 where none is given; None: no image has one
    """

    names: Sequence[str]
    paths: Sequence[Path]
    labels: Sequence[int] | None = None


@dataclass(frozen=True)
class Decoded:
    """One image of a list.

    Attributes
    ----------
    position : in the list
    pixels : uint8 [3, S, S]; None where it cannot be read
    reason : why not
    """

    position: int
    pixels: np.ndarray | None
    reason: str = ""


def listed(given: Sequence[Path], class_names: Sequence[str]) -> ImageList:
    """Return the images that paths name: files, folders with all images below, or one table (`.csv`).

    A table has a column `image`, paths relative to its folder, and may have a column `label`, names of classes.

    Raises
    ------
    UserError : a path that is missing, a folder without images, a table that is none, an unknown class
    """
    if len(given) == 1 and given[0].suffix.lower() == ".csv" and not given[0].is_dir():
        return _of_table(given[0], class_names)
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            below = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
            if not below:
                raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)})")
            paths += below
        elif path.exists():
            paths.append(path)
        else:
            raise UserError(f"there is no image {path}; give files, a folder, or a CSV with a column `image`")
    return ImageList([str(path) for path in paths], paths)


def _of_table(path: Path, class_names: Sequence[str]) -> ImageList:
    table = read_table(path, ["image"])
    names = table["image"].str.strip().tolist()
    if not names:
        raise UserError(f"{path} lists no image")
    if not all(names):
        raise UserError(f"{path}, line {table.index[names.index('')]} has no image; fill it in, or remove the line")
    paths = [path.parent / name for name in names]
    if "label" not in table:
        return ImageList(names, paths)
    known = {"": -1, **{name: label for label, name in enumerate(class_names)}}
    texts = table["label"].str.strip().tolist()
    for text in texts:
        if text not in known:
            raise unknown("class", text, class_names)
    return ImageList(names, paths, [known[text] for text in texts])


def decoded_batches(
    images: ImageList, decode: Callable[[Path], np.ndarray], batch_size: int
) -> Iterator[Sequence[Decoded]]:
    """Yield the images in batches, in order; one that cannot be read comes with its reason.

    Parameters
    ----------
    decode : of a file, uint8 [3, S, S]; raises `UserError`
    """

    def read(position: int) -> Decoded:
        try:
            return Decoded(position, decode(images.paths[position]))
        except UserError as error:
            return Decoded(position, None, str(error))

    count, batch = len(images.paths), []
    workers, quiet = available_cores(), count <= batch_size
    for one in in_threads(read, range(count), workers=workers, label="predicting", unit="images", quiet=quiet):
        batch.append(one)
        if len(batch) == batch_size or one.position == count - 1:
            yield batch
            batch = []
