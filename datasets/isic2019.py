"""ISIC-2019-LT: dermatoscopy images of 8 diagnoses, from an official ISIC 2019 training folder.

Source: ISIC 2019 challenge, https://challenge2019.isic-archive.com/; class order of Ju et al., MICCAI 2022.
Licence: CC BY-NC 4.0.

Class ids in the order of Flexible Sampling (Ju et al., MICCAI 2022), which is neither alphabetical nor the table's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ltbench.datasets import register
from ltbench.datasets.base import Source
from ltbench.datasets.manifest import read_table
from ltbench.errors import UserError

GROUND_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGE_FOLDER = "ISIC_2019_Training_Input"
_WEBSITE = "https://challenge.isic-archive.com/data/#2019"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@register("isic2019")
class Isic2019(Source):
    """The 25,331 training images of the ISIC 2019 challenge, as far as they are in the folder.

    Parameters
    ----------
    root : folder with the two official tables, and the images in `ISIC_2019_Training_Input/`, beside the tables or in
        any other single folder below; an image is `<id>.jpg`, or has another of the usual suffixes

    Raises
    ------
    UserError : folder or table missing; a table that lacks a column, repeats an image, has an unknown class, or a row
        without exactly one class; the message names the file and the line
    """

    title = "ISIC-2019-LT"
    licence = "CC BY-NC 4.0"
    citation = (
        "Tschandl et al., Scientific Data 5, 180161 (2018); Codella et al., arXiv:1710.05006; "
        "Combalia et al., arXiv:1908.02288"
    )
    preset = "paper"
    has_lesion_ids = True
    default_n_max = 5000
    class_names = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")

    def __init__(self, root: Path | None = None) -> None:
        if root is None:
            raise UserError(f"isic2019 needs its folder (--data-root) with {GROUND_TRUTH}; get it from {_WEBSITE}")
        super().__init__(Path(root).expanduser())
        if not self.root.is_dir():
            raise UserError(f"the data folder {self.root} does not exist; get the data from {_WEBSITE}")
        for name in (GROUND_TRUTH, METADATA):
            if not (self.root / name).is_file():
                raise UserError(f"{self.root / name} is missing; get it from {_WEBSITE}")
        self.ids, self.labels = _read_labels(self.root / GROUND_TRUTH, self.class_names)
        self.lesions = _read_lesions(self.root / METADATA, self.ids)
        self._folder, files = _find_images(self.root, self.ids)
        self._names = np.array([files.get(image, "") for image in self.ids.tolist()])
        self.present = self._names != ""

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds the table of labels."""
        return (root / GROUND_TRUTH).is_file()

    def read(self, position: int, size: int) -> np.ndarray:
        """Return image `position` resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

        Raises
        ------
        UserError : the image is missing, corrupt or truncated; the message names the file
        """
        path = self._path(position)
        try:
            with Image.open(path) as image:
                image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size where that does
                small = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UserError(f"cannot read the image {path}: {reason}; fetch it again from {_WEBSITE}") from error
        return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero, from size and time of change of each file.

        Raises
        ------
        UserError : an image is missing; the message names the file
        """
        numbers = np.empty(len(positions), dtype=np.int64)
        for index, position in enumerate(positions):
            path = self._path(int(position))
            try:
                status = os.stat(path)  # noqa: PTH116  Path.stat costs twice as much, and there are thousands
            except OSError as error:
                raise UserError(f"cannot read the image {path}: {error.strerror}") from error
            text = f"{status.st_size} {status.st_mtime_ns}".encode()
            number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
            numbers[index] = number or 1
        return numbers

    def describe_missing(self) -> str | None:
        """Return how many images are missing where, and the first one; None where all are there."""
        missing = self.ids[~self.present]
        if not len(missing):
            return None
        return f"{len(missing)} of {len(self.ids)} images missing under {self.root} (first: {missing[0]}.jpg)"

    def _path(self, position: int) -> str:
        name = str(self._names[position])
        if not name:
            raise UserError(
                f"the image {self._folder / str(self.ids[position])}.jpg is missing; get it from {_WEBSITE}"
            )
        return os.path.join(self._folder, name)  # noqa: PTH118  as above


def _read_labels(path: Path, class_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, str [N], and class ids, int64 [N], of the ground truth, in its order."""
    table = _read_images(path, ("image", *class_names))
    classes = [column for column in table.columns if column != "image"]
    unknown = [column for column in classes if column not in (*class_names, "UNK")]
    if unknown:
        raise UserError(f"{path} has the unknown class {unknown[0]!r}; known: {', '.join((*class_names, 'UNK'))}")
    marks = table[classes].apply(pd.to_numeric, errors="coerce")
    _refuse(path, table, ~marks.isin([0, 1]).all(axis=1), "has a mark other than 0 and 1")
    _refuse(path, table, marks.sum(axis=1) > 1, "has more than one class")
    _refuse(path, table, marks.sum(axis=1) < 1, "has no class")
    if "UNK" in marks:
        _refuse(path, table, marks["UNK"] == 1, "has the class UNK, which the benchmark does not know")
    labels = marks[list(class_names)].to_numpy().argmax(axis=1).astype(np.int64)
    return table["image"].to_numpy(dtype=str), labels


def _read_lesions(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return the lesion of each image, str [N]; one without a lesion, or without a row, has its own id."""
    table = _read_images(path, ("image", "lesion_id"))
    known = table[table["lesion_id"] != ""]
    lesions = dict(zip(known["image"], known["lesion_id"], strict=True))
    return np.array([lesions.get(image, image) for image in ids.tolist()])


def _read_images(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = read_table(path, columns)
    if table.empty:
        raise UserError(f"{path} lists no image; fetch it again from {_WEBSITE}")
    _refuse(path, table, table["image"] == "", "has no image id")
    _refuse(path, table, table["image"].duplicated(), "repeats an earlier image")
    return table


def _refuse(path: Path, table: pd.DataFrame, bad: pd.Series, what: str) -> None:
    if bad.any():
        line = bad.idxmax()
        image = table.loc[line, "image"]
        raise UserError(f"{path}, line {line} (image {image!r}) {what}; mend the line, or fetch it from {_WEBSITE}")


def _find_images(root: Path, ids: np.ndarray) -> tuple[Path, Mapping[str, str]]:
    """Return the folder that holds images, and the file name of each id found in it.

    The official folder goes before the root, the root before any other folder below it; each is listed once.
    """
    wanted = set(ids.tolist())
    official = root / IMAGE_FOLDER
    for folder in (official, official / IMAGE_FOLDER, root):  # unpacking into a folder of the same name nests it
        if folder.is_dir() and (files := _list_images(folder, wanted)):
            return folder, files
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK)):
        if files := _list_images(folder, wanted):
            found[folder] = files
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise UserError(f"{root} has images in several folders ({names}); rename the one to use to {IMAGE_FOLDER}")
    return next(iter(found.items()), (official, {}))


def _list_images(folder: Path, wanted: set[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122  a Path for each of 25,000 entries is slow
                # With two files of one image the choice must not hang on the order of the folder.
                if stem in wanted and suffix.lower() in _SUFFIXES:
                    files[stem] = min(entry.name, files.get(stem, entry.name))
    except OSError as error:
        raise UserError(f"cannot list the image folder {folder}: {error.strerror}") from error
    return files
