"""HAM10000: 10,015 dermatoscopy images of 7 diagnoses, with the lesion of each, from the published folder.

Source: Tschandl et al., Scientific Data 5, 180161 (2018); https://doi.org/10.7910/DVN/DBW86T.
Size: 7 classes, 10,015 images.
Licence: CC BY-NC 4.0.

Classes in the order of their frequency: NV melanocytic nevi; MEL melanoma; BKL benign keratosis-like lesions (solar
lentigo, seborrheic keratosis, lichen planus-like keratosis); BCC basal cell carcinoma; AKIEC actinic keratosis and
intraepithelial carcinoma (Bowen's disease); VASC vascular lesions; DF dermatofibroma.

The 10,015 images show 7,470 lesions, so that a split by image leaks; the default is `--split lesion`. The data have a
long tail of their own (58 to 1), which is the default ratio.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ltbench.datasets import register
from ltbench.datasets.download.remote import Remote
from ltbench.datasets.sources._image_files import FileSource, locate, require_folder
from ltbench.datasets.sources.isic2019 import IMAGE_FOLDER
from ltbench.datasets.tables import known_ids, read_image_table, refuse

METADATA = "HAM10000_metadata.csv"
FOLDERS = (("HAM10000_images_part_1", "HAM10000_images_part_2"), ("HAM10000_images",), (IMAGE_FOLDER,))
WEBSITE = "https://doi.org/10.7910/DVN/DBW86T"
_FILE = "https://dataverse.harvard.edu/api/access/datafile"
DOWNLOADS = (  # sizes and MD5 sums as Dataverse publishes them; it converts a table unless the original is asked for
    Remote(f"{_FILE}/4338392?format=original", METADATA, size=690218, checksum="md5:8f85fb1aa29d80a2797247e434deb79d"),
    Remote(
        f"{_FILE}/3172585",
        "HAM10000_images_part_1.zip",
        size=1366522108,
        checksum="md5:4639bfa73ab251610530a97c898e6e46",
        unpack=True,
    ),
    Remote(
        f"{_FILE}/3172584",
        "HAM10000_images_part_2.zip",
        size=1403566547,
        checksum="md5:da43d6cc50f6613013be07e8986b384b",
        unpack=True,
    ),
)
CLASSES = ("NV", "MEL", "BKL", "BCC", "AKIEC", "VASC", "DF")


@register("ham10000")
class Ham10000(FileSource):
    """The images of HAM10000, as far as they are in the folder.

    Parameters
    ----------
    root : folder with `HAM10000_metadata.csv` (the original file, whose fields are separated by commas), and the images
        in `HAM10000_images_part_1/` and `HAM10000_images_part_2/`, in `HAM10000_images/`, in an ISIC 2019 folder,
        beside the table or in other folders below; an image is `<id>.jpg`, or has another of the usual suffixes

    Raises
    ------
    UserError : folder or table missing; a table that lacks a column, repeats an image, has an unknown diagnosis or a
        row without a lesion; the message names the file and the line
    """

    title = "HAM10000"
    licence = "CC BY-NC 4.0"
    citation = "Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161 (2018)"
    website = WEBSITE
    preset = "paper"
    has_lesion_ids = True
    default_ratio = "natural"
    default_split = "lesion"
    default_n_max = "auto"
    default_val_per_class = None
    default_test_per_class = None
    class_names = CLASSES
    special_classes = ("MEL",)
    expected_counts = MappingProxyType(dict(zip(CLASSES, (6705, 1113, 1099, 514, 327, 142, 115), strict=True)))
    downloads = DOWNLOADS
    remedy = f"fetch it again from {WEBSITE}"

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.root = self.folder = require_folder("ham10000", root, (METADATA,), WEBSITE)
        path = self.folder / METADATA
        table = read_image_table(path, ("image_id", "lesion_id", "dx"), self.remedy)
        images, diagnoses = table["image_id"], table["dx"].str.upper()
        known = ", ".join(self.class_names).lower()
        refuse(path, images, ~diagnoses.isin(self.class_names), f"has an unknown dx; known: {known}", self.remedy)
        lesions = known_ids(table["lesion_id"])
        refuse(path, images, lesions == "", "has no lesion_id", self.remedy)
        self.ids = images.to_numpy(dtype=str)
        self.labels = diagnoses.map(self.class_names.index).to_numpy(dtype=np.int64)
        self.lesions = lesions.to_numpy(dtype=str)
        self.files, self.present = locate(self.folder, self.ids, FOLDERS)

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds the table of labels."""
        return (root / METADATA).is_file()
