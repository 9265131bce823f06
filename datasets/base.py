"""What every dataset provides: the labels of all its images, and a way to read one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ltbench.options import check_declared, filled

if TYPE_CHECKING:
    from ltbench.datasets.download.remote import Remote

NATURAL = "natural"
"""The ratio of data as they are."""


@dataclass(frozen=True)
class NoOptions:
    """A dataset that has none."""


class Source(ABC):
    """All labelled images of one dataset, before any split.

    Subclasses are registered with `@register("<file stem>")`, fill the arrays in `__init__` from tables alone
    (no image is opened), and must be picklable: several processes read images side by side.

    Parameters
    ----------
    root : folder of the dataset
    options : fields of `Options`, as values or as text

    Raises
    ------
    UserError : an unknown option, or one of the wrong type or out of range

    Attributes
    ----------
    Options : frozen dataclass of the dataset's options (see `ltbench.options`); a field `split_dir` or `image_size` is
        what the run has where nothing else is given
    name : the registered name
    title : the name printed in the first line and in the table's title
    revision : of the images; results of another one are not taken for results of this one
    variant : distinguishes two sources of one name whose images differ
    group_name : what the images of one of `lesions` share, for printed lines: a lesion, or what the user's table groups
    has_lesion_ids : whether images may share a lesion, so that one without a lesion id is worth a note
    class_names : K names, indexed by class id
    ids : str [N], unique, one an image
    labels : int64 [N], class ids
    lesions : str [N], lesion of each image; an image without a lesion id has its own id here
    present : bool [N], whether the image can be read
    patients : str [N], patient of each image, "" where unknown; None: nothing is known of patients
    parts : str [N], `train`, `val`, `test` or "" of each image, where the dataset itself is divided; None: it is not
    notes : what a reader of the numbers has to know of the images, one line each
    label_notes : those of the notes that may be why a class has too few images: repeated where it has
    tables : files that say what the images are; None: the tables and archives that lie right in the data folder
    groups : head, medium and tail as class ids, where the field has fixed them; None: thirds by frequency
    special_classes : names of the classes that a reader looks at first, e.g. melanoma; metrics report them one by one
    needs_folder : whether the images come from a folder (`--data-root`)
    default_ratio : imbalance ratio of `--ratio` by default; `natural` takes the data as they are
    default_split : name of `--split` by default
    default_n_max : training images of the largest class at a ratio by default, or `auto`
    default_val_per_class, default_test_per_class : images a class; None: a tenth and a fifth of each class
    expected_counts : images of each class in the whole dataset, by name; None: not known beforehand
    website : where the data are got
    downloads : the files that `ltbench data download` fetches
    archive_folder : folder of those images that are fetched from the ISIC Archive, one by one; "": there are none
    """

    Options: ClassVar[type] = NoOptions
    name: ClassVar[str]
    title: str
    licence: str
    citation: str
    preset: ClassVar[str]
    group_name: str = "lesion"
    has_lesion_ids: bool = False
    default_ratio: ClassVar[float | Literal["natural"]] = 100.0
    default_split: str = "paper"
    default_n_max: ClassVar[int | Literal["auto"]]
    default_val_per_class: ClassVar[int | None] = 50
    default_test_per_class: ClassVar[int | None] = 100
    expected_counts: Mapping[str, int] | None = None
    website: ClassVar[str] = ""
    downloads: ClassVar[tuple[Remote, ...]] = ()
    archive_folder: ClassVar[str] = ""
    needs_folder: ClassVar[bool] = True
    special_classes: tuple[str, ...] = ()
    groups: Mapping[str, tuple[int, ...]] | None = None

    variant: str = ""
    revision: int = 0
    class_names: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    lesions: np.ndarray
    present: np.ndarray
    patients: np.ndarray | None = None
    parts: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    label_notes: tuple[str, ...] = ()
    tables: tuple[Path, ...] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        check_declared(f"{cls.__name__}.Options", cls.Options)

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        self.options = self.configured(options)
        self.root = root

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds this dataset, as far as a glance can tell."""
        return False

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> Any:
        """Return the `Options` with what was given.

        Raises
        ------
        UserError : an unknown option, or one of the wrong type or out of range
        """
        name = getattr(cls, "name", cls.__name__)  # it has none before it is registered
        return filled(cls.Options, options, label=name, what=f"option of dataset {name}")

    @classmethod
    def remotes(cls, **options: Any) -> tuple[Remote, ...]:
        """Return the files to download with these options.

        Raises
        ------
        UserError : as the constructor
        """
        cls.configured(options)
        return cls.downloads

    @classmethod
    def require_by_hand(cls, root: Path, split_dir: Path | str | None) -> None:
        """Check, before a download, that what cannot be downloaded is there.

        Raises
        ------
        UserError : it is not; the message says what to copy where
        """
        return

    def describe_missing(self, needed: np.ndarray | None = None) -> str | None:
        """Return how many of the images `needed`, bool [N], are missing, and the first; None where all are there.

        None for `needed` means all images.
        """
        needed = np.ones(len(self.ids), dtype=bool) if needed is None else needed
        missing = np.flatnonzero(needed & ~self.present)
        if not len(missing):
            return None
        return f"{len(missing)} of {needed.sum()} images missing{self._expected_at(int(missing[0]))}"

    def _expected_at(self, first: int) -> str:
        return f" (first: {self.ids[first]})"

    @abstractmethod
    def read(self, position: int, size: int) -> np.ndarray:
        """Return image `position` resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

        Raises
        ------
        UserError : the image is missing, corrupt or truncated; the message names the file
        """

    @abstractmethod
    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero: a number per image that changes when its content may have changed."""

    def contents(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n]: a number per image that changes when and only when its content does.

        Asked for where the fingerprint alone does not decide. By default, the fingerprint.
        """
        return self.fingerprints(positions)
