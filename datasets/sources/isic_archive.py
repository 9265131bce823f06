"""ISIC-Archive-LT: skin images of 14 diagnoses, from an ISIC 2019 folder and more images of the ISIC Archive.

Source: Ju et al., MICCAI 2022 (Flexible Sampling), supplement; ISIC 2019 challenge and https://www.isic-archive.com/.
Size: 14 classes, 25,020 images.
Licence: CC BY-NC 4.0; images from outside ISIC 2019 have the licence that the archive states for each.

Classes in the order of their frequency: NV melanocytic nevus, MEL melanoma, BCC basal cell carcinoma, SK seborrheic
keratosis; AK actinic keratosis, SCC squamous cell carcinoma, BKL other benign keratosis, SL solar lentigo; VASC
vascular lesion, DF dermatofibroma, LK lichenoid keratosis, LS lentigo simplex, AN angioma, AMP atypical melanocytic
proliferation. The three groups are the supplement's head, medium and tail.

**How the labels arise.** The authors published their list as pickled arrays, beside a table of the archive,
`additional_data.csv`. Their 25,020 labels follow from this table and the ground truth of ISIC 2019, to the image:

- An image of ISIC 2019 keeps its class, unless it is BKL. BKL becomes SK or SL where the table gives that diagnosis, is
  left out where it gives *pigmented benign keratosis* (1,099 images), and stays BKL where the table lacks the image.
- Any other image of the table has the class of its diagnosis, but for three clinical photographs, which the authors
  left out as well.

**Folder.** The root is an ISIC 2019 folder (see `isic2019`). `additional_data.csv` is there or in `--split-dir`; of its
columns, `name`, `meta.clinical.diagnosis`, `meta.clinical.lesion_id` and `meta.clinical.patient_id` are read, so a
table of one's own may hold no more. Where it is missing, labels are taken from the authors' `dic.npy` (nothing in it is
executed), and neither patients nor lesions of the archive are known. The images of the archive are in `ISIC_Archive/`,
with those of ISIC 2019, beside the tables or in other folders below.

**What leaks.** The authors divided by image. By lesion ids alone, 2,829 of their 5,009 test images show a lesion that
training shows too. Beyond that, all 384 images of BKL, `ISIC_X_downsampled` in ISIC 2019, have their originals
`ISIC_X` in the archive, where they are SK: one photograph is in the data twice, under two classes (age, sex and site
agree for all 384 pairs). An original and its smaller copy count as one lesion here, which makes it 2,932. So no lesion
of BKL is of BKL alone, and `--split lesion` can hold none out; `--dataset-option copies=once` leaves the 384 originals
out, which takes SK to 1,080 images and makes that split possible.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd

from ltbench.datasets import register
from ltbench.datasets.sources._image_files import FileSource, locate, require_folder
from ltbench.datasets.sources.isic2019 import (
    CITATION,
    DOWNLOADS,
    FOLDERS,
    GROUND_TRUTH,
    METADATA,
    WEBSITE,
    read_ground_truth,
    read_lesions,
)
from ltbench.datasets.sources.isic2019 import CLASSES as CLASSES_2019
from ltbench.datasets.splits.published import read_label_dictionary
from ltbench.datasets.tables import known_ids, read_image_table, refuse
from ltbench.errors import UserError
from ltbench.options import option

ADDITIONAL = "additional_data.csv"
DICTIONARY = "dic.npy"
CLASSES = ("NV", "MEL", "BCC", "SK", "AK", "SCC", "BKL", "SL", "VASC", "DF", "LK", "LS", "AN", "AMP")
_NUMBERS = (12875, 4522, 3393, 1464, 869, 656, 384, 270, 253, 246, 32, 27, 15, 14)
_COUNTS = MappingProxyType(dict(zip(CLASSES, _NUMBERS, strict=True)))
_NAME, _DIAGNOSIS, _LESION, _PATIENT = (
    "name",
    *(f"meta.clinical.{column}" for column in ("diagnosis", "lesion_id", "patient_id")),
)
_LEFT_OUT = "pigmented benign keratosis"
_CLINICAL = ("ISIC_0024260", "ISIC_0024269", "ISIC_0024281")
_DIAGNOSES = {
    "nevus": "NV",
    "melanoma": "MEL",
    "basal cell carcinoma": "BCC",
    "seborrheic keratosis": "SK",
    "actinic keratosis": "AK",
    "squamous cell carcinoma": "SCC",
    _LEFT_OUT: "",
    "solar lentigo": "SL",
    "vascular lesion": "VASC",
    "dermatofibroma": "DF",
    "lichenoid keratosis": "LK",
    "lentigo simplex": "LS",
    "angioma": "AN",
    "atypical melanocytic proliferation": "AMP",
}
_BENIGN_KERATOSES = ("", "SK", "SL", "BKL")  # what is one class in ISIC 2019
_COPY = "_downsampled"
_ORIGINALS = 384  # of images that ISIC 2019 has smaller
_REMEDY = "restore it from the authors' files"


@register("isic_archive")
class IsicArchive(FileSource):
    """The 25,020 images of ISIC-Archive-LT, as far as they are in the folder.

    Parameters
    ----------
    root : an ISIC 2019 folder, with the images of the archive; see the module
    options : see `Options`

    Raises
    ------
    UserError : folder or table missing; a table that lacks a column, repeats an image, has an unknown class or
        diagnosis, or contradicts the ground truth; the message names the file, and the line or the image
    """

    title = "ISIC-Archive-LT"
    licence = "CC BY-NC 4.0 (ISIC 2019), by image (ISIC Archive)"
    citation = f"Ju et al., MICCAI 2022; {CITATION}"
    website = "https://www.isic-archive.com/"
    preset = "paper_archive"
    has_lesion_ids = True
    default_ratio = "natural"
    default_n_max = "auto"
    default_val_per_class = None
    default_test_per_class = None
    class_names = CLASSES
    special_classes = ("MEL",)
    expected_counts: Mapping[str, int] = _COUNTS
    groups = MappingProxyType({"head": (0, 1, 2, 3), "medium": (4, 5, 6, 7), "tail": (8, 9, 10, 11, 12, 13)})
    downloads = DOWNLOADS
    archive_folder = "ISIC_Archive"
    remedy = "get it from the ISIC Archive (https://www.isic-archive.com/)"

    @dataclass(frozen=True)
    class Options:
        """Where the labels are, and which images are taken."""

        split_dir: str | None = option(None, help=f"the authors' folder, with {ADDITIONAL} or {DICTIONARY}")
        copies: Literal["both", "once"] = option(
            "both", help="once: without the originals of which ISIC 2019 has a smaller copy"
        )

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.root = self.folder = require_folder("isic_archive", root, (GROUND_TRUTH, METADATA), WEBSITE)
        ids, labels = read_ground_truth(self.folder / GROUND_TRUTH, CLASSES_2019)
        truth = dict(zip(ids.tolist(), (CLASSES_2019[label] for label in labels), strict=True))
        lesions = read_lesions(self.folder / METADATA, ids)
        path = _authors_file(self.folder, self.options.split_dir)
        if path.name == ADDITIONAL:
            table = read_image_table(path, (_NAME, _DIAGNOSIS, _LESION, _PATIENT), _REMEDY)
            classes, patients = _by_diagnosis(path, table, truth), _known(table, _PATIENT)
            lesions |= _known(table, _LESION)
        else:
            classes, patients = _by_dictionary(path, truth), None
        if self.options.copies == "once":
            classes = {image: name for image, name in classes.items() if f"{image}{_COPY}" not in classes}
            self.variant, self.title = "copies-once", f"{self.title}, one copy an image"
            self.expected_counts = {**_COUNTS, "SK": _COUNTS["SK"] - _ORIGINALS}
        self.ids = np.array(list(classes))
        self.labels = np.array([CLASSES.index(name) for name in classes.values()], dtype=np.int64)
        self.lesions = np.array(_join_copies(self.ids.tolist(), lesions))
        if patients is not None:
            self.patients = np.array([patients.get(image, "") for image in classes])
        self.files, self.present = self._locate(np.array([image in truth for image in classes]))

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds the table of ISIC 2019 and one of the authors' files."""
        return (root / GROUND_TRUTH).is_file() and any((root / name).is_file() for name in (ADDITIONAL, DICTIONARY))

    @classmethod
    def require_by_hand(cls, root: Path, split_dir: Path | str | None) -> None:
        """Check that one of the authors' files is there, which says what else there is to download.

        Raises
        ------
        UserError : it is not; the message says what to copy where
        """
        _authors_file(root, split_dir)

    def _locate(self, of_2019: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the images of ISIC 2019, bool [N], and of the archive each by the rule of `locate`."""
        files, present = np.empty(len(self.ids), dtype=object), np.zeros(len(self.ids), dtype=bool)
        for chosen, folders in ((of_2019, FOLDERS), (~of_2019, ((self.archive_folder,), *FOLDERS))):
            files[chosen], present[chosen] = locate(self.folder, self.ids[chosen], folders)
        return files.astype(str), present


def _authors_file(root: Path, split_dir: Path | str | None) -> Path:
    folders = (root, *([Path(split_dir).expanduser()] if split_dir is not None else []))
    for name in (ADDITIONAL, DICTIONARY):
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    places = " or ".join(map(str, folders))
    raise UserError(
        f"isic_archive needs {ADDITIONAL} or {DICTIONARY} of the authors of Flexible Sampling in {places}; "
        "copy one there, or give their folder with --split-dir"
    )


def _by_diagnosis(path: Path, table: pd.DataFrame, truth: Mapping[str, str]) -> dict[str, str]:
    """Return the class of each image, from the class in ISIC 2019 and the diagnosis in the archive."""
    images, diagnoses = table[_NAME], table[_DIAGNOSIS]
    known = ", ".join(_DIAGNOSES)
    refuse(path, images, ~diagnoses.isin(_DIAGNOSES), f"has an unknown {_DIAGNOSIS}; known: {known}", _REMEDY)
    new, old = diagnoses.map(_DIAGNOSES), images.map(truth)
    in_2019 = new.mask(new.isin(_BENIGN_KERATOSES), "BKL")
    refuse(path, images, old.notna() & (old != in_2019), f"contradicts the class in {GROUND_TRUTH}", _REMEDY)
    classes = {**truth, **dict(zip(images, new, strict=True))}
    left_out = {image for image in _CLINICAL if image not in truth}
    return {image: name for image, name in classes.items() if name and image not in left_out}


def _by_dictionary(path: Path, truth: Mapping[str, str]) -> dict[str, str]:
    """Return the class of each image that the authors list: those of ISIC 2019 in its order, then the others by id."""
    listed = read_label_dictionary(path)
    if max(listed.values()) >= len(CLASSES):
        raise UserError(f"{path} has the class id {max(listed.values())}; want 0 to {len(CLASSES) - 1}")
    published = {os.path.splitext(file)[0]: CLASSES[label] for file, label in listed.items()}  # noqa: PTH122
    for image, new in published.items():
        if truth.get(image, "") not in ("", "BKL" if new in _BENIGN_KERATOSES else new):
            raise UserError(f"{path} gives {image} the class {new}, {GROUND_TRUTH} {truth[image]}; {_REMEDY}")
    others = sorted(published.keys() - truth.keys())
    return {image: published[image] for image in (*truth, *others) if image in published}


def _known(table: pd.DataFrame, column: str) -> dict[str, str]:
    return {image: known for image, known in zip(table[_NAME], known_ids(table[column]), strict=True) if known}


def _join_copies(ids: list[str], lesions: Mapping[str, str]) -> list[str]:
    """Return the lesion of each image; a smaller copy shares that of its original, without one the original's id."""
    joined, known = dict(lesions), set(ids)
    for image in ids:
        original = image.removesuffix(_COPY)
        if original != image and original in known:
            joined[image] = joined[original] = lesions.get(image) or lesions.get(original) or original
    return [joined.get(image, image) for image in ids]
