"""ISIC-2019-LT: dermatoscopy images of 8 diagnoses, from an official ISIC 2019 training folder.

Source: ISIC 2019 challenge, https://challenge2019.isic-archive.com/; class order of Ju et al., MICCAI 2022.
Size: 8 classes, 25,331 images.
Licence: CC BY-NC 4.0.

Class ids in the order of Flexible Sampling (Ju et al., MICCAI 2022), which is neither alphabetical nor the table's.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from ltbench.datasets import register
from ltbench.datasets.download.remote import Remote
from ltbench.datasets.sources._image_files import FileSource, locate, require_folder
from ltbench.datasets.tables import known_ids, read_image_table, refuse, require_joined
from ltbench.errors import UserError

GROUND_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGE_FOLDER = "ISIC_2019_Training_Input"
FOLDERS = ((IMAGE_FOLDER,), (f"{IMAGE_FOLDER}/{IMAGE_FOLDER}",))  # unpacking into a folder of the same name nests it
WEBSITE = "https://challenge.isic-archive.com/data/#2019"
REMEDY = f"fetch it again from {WEBSITE}"
_SERVER = "https://isic-archive.s3.amazonaws.com/challenges/2019"
DOWNLOADS = (  # the challenge publishes neither sizes nor checksums
    Remote(f"{_SERVER}/{GROUND_TRUTH}", GROUND_TRUTH),
    Remote(f"{_SERVER}/{METADATA}", METADATA),
    Remote(f"{_SERVER}/{IMAGE_FOLDER}.zip", f"{IMAGE_FOLDER}.zip", unpack=True),
)
CLASSES = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")
CITATION = (
    "Tschandl et al., Scientific Data 5, 180161 (2018); Codella et al., arXiv:1710.05006; "
    "Combalia et al., arXiv:1908.02288"
)


@register("isic2019")
class Isic2019(FileSource):
    """The 25,331 training images of the ISIC 2019 challenge, as far as they are in the folder.

    Parameters
    ----------
    root : folder with the two official tables, and the images in `ISIC_2019_Training_Input/`, beside the tables or in
        other folders below; an image is `<id>.jpg`, or has another of the usual suffixes

    Raises
    ------
    UserError : folder or table missing; a table that lacks a column, repeats an image, has an unknown class, or a row
        without exactly one class; the message names the file and the line
    """

    title = "ISIC-2019-LT"
    licence = "CC BY-NC 4.0"
    citation = CITATION
    website = WEBSITE
    preset = "paper"
    has_lesion_ids = True
    default_n_max = 5000
    class_names = CLASSES
    special_classes = ("MEL",)
    expected_counts = MappingProxyType(dict(zip(CLASSES, (12875, 4522, 3323, 2624, 867, 628, 253, 239), strict=True)))
    downloads = DOWNLOADS
    remedy = REMEDY

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.root = self.folder = require_folder("isic2019", root, (GROUND_TRUTH, METADATA), WEBSITE)
        self.ids, self.labels = read_ground_truth(self.folder / GROUND_TRUTH, self.class_names)
        lesions = read_lesions(self.folder / METADATA, self.ids)
        self.lesions = np.array([lesions.get(image, image) for image in self.ids.tolist()])
        self.files, self.present = locate(self.folder, self.ids, FOLDERS)

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds the table of labels."""
        return (root / GROUND_TRUTH).is_file()


def read_ground_truth(path: Path, class_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, str [N], and class ids, int64 [N], of the ground truth, in its order.

    Raises
    ------
    UserError : see `Isic2019`
    """
    table = read_image_table(path, ("image", *class_names), REMEDY)
    classes = [column for column in table.columns if column != "image"]
    unknown = [column for column in classes if column not in (*class_names, "UNK")]
    if unknown:
        raise UserError(f"{path} has the unknown class {unknown[0]!r}; known: {', '.join((*class_names, 'UNK'))}")
    marks = table[classes].apply(pd.to_numeric, errors="coerce")
    for bad, what in (
        (~marks.isin([0, 1]).all(axis=1), "has a mark other than 0 and 1"),
        (marks.sum(axis=1) > 1, "has more than one class"),
        (marks.sum(axis=1) < 1, "has no class"),
        (marks.get("UNK", pd.Series(0, marks.index)) == 1, "has the class UNK, which the benchmark does not know"),
    ):
        refuse(path, table["image"], bad, what, REMEDY)
    labels = marks[list(class_names)].to_numpy().argmax(axis=1).astype(np.int64)
    return table["image"].to_numpy(dtype=str), labels


def read_lesions(path: Path, images: np.ndarray) -> dict[str, str]:
    """Return the lesion of each image that has one.

    Parameters
    ----------
    images : str [N], of the ground truth

    Raises
    ------
    UserError : the file is missing, no CSV, lacks a column, repeats an image or lists fewer than half of `images`; the
        message names file and line
    """
    table = read_image_table(path, ("image", "lesion_id"), REMEDY)
    require_joined(path, table["image"], images.tolist())
    lesions = known_ids(table["lesion_id"])
    return {image: lesion for image, lesion in zip(table["image"], lesions, strict=True) if lesion}
