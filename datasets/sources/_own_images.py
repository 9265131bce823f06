"""What the datasets of a user's own images share: `csv` and `imagefolder`."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltbench.datasets.sources._image_files import FileSource
from ltbench.datasets.splits.longtail import PARTS
from ltbench.errors import UserError, counted
from ltbench.files import content_digest

_SPECIAL = ("mel", "melanoma")
_PART = re.compile(r"(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?:[ _-]?set)?", re.IGNORECASE)


class OwnImages(FileSource):
    """Images of which nothing is known but what the user says.

    Class ids are by frequency, ties by name, unless the classes are given.
    """

    licence = "yours"
    citation = ""
    preset = "paper"
    default_ratio = "natural"
    default_n_max = "auto"
    default_val_per_class = None
    default_test_per_class = None
    remedy = "restore the file"

    def checksum(self, position: int) -> str:
        """Return the SHA-256 that the file of image `position` should have, "" where the user does not say."""
        return ""

    def require_checksum(self, position: int, found: str) -> None:
        """Check the SHA-256 of the file of image `position`.

        Raises
        ------
        UserError : it is not the one that it should be; the message names the file and where it is listed
        """
        expected = self.checksum(position)
        if expected not in ("", found):
            raise UserError(
                f"the image {self.path(position)}{self.origin(position)} has the SHA-256 {found}, not {expected}; "
                "restore the file, or fix the line"
            )

    def _unified(self, what: str, values: Sequence[str], merge: bool, preferred: Sequence[str] = ()) -> Sequence[str]:
        """Return labels or ids of groups, joined if asked for where they differ in spelling alone; note that they do.

        Parameters
        ----------
        what : one of them is
        preferred : spellings that stand for the others; else the most frequent one does
        """
        counts = Counter(value for value in values if value)
        usual: dict[str, str] = {}
        for value in (*preferred, *sorted(counts, key=lambda value: (-counts[value], value))):
            usual.setdefault(_spelling(value), value)
        others = {value: usual[_spelling(value)] for value in counts if usual[_spelling(value)] != value}
        if not others:
            return values
        other, stands = next(iter(others.items()))
        done = "joined" if merge else "kept separate; --dataset-option merge_labels=true joins them"
        differ = f"{counted(len(others), what)} {'differs' if len(others) == 1 else 'differ'}"
        self.notes += (f"{differ} from others in spelling alone (first: {other!r} and {stands!r}); {done}",)
        return [others.get(value, value) for value in values] if merge else values

    def _unified_labels(
        self, what: str, values: Sequence[str], merge: bool, preferred: Sequence[str] = ()
    ) -> Sequence[str]:
        """As `_unified`, for what the classes are made from."""
        before = len(self.notes)
        unified = self._unified(what, values, merge, preferred)
        self.label_notes = () if merge else self.notes[before:]
        return unified

    def _set_classes(self, names: Sequence[str], where: Path, classes: Sequence[str] | None = None) -> None:
        """Set `class_names` and `labels` from the class of each image, all of them among `classes` if given.

        Raises
        ------
        UserError : fewer than two classes; the message names `where` they come from
        """
        counts = Counter(names)
        self.class_names = tuple(classes or sorted(counts, key=lambda name: (-counts[name], name)))
        if len(self.class_names) < 2:
            raise UserError(f"{where} has only the class {self.class_names[0]!r}; a classifier needs two")
        self.special_classes = tuple(name for name in self.class_names if name.strip().lower() in _SPECIAL)[:1]
        position = {name: label for label, name in enumerate(self.class_names)}
        self.labels = np.array([position[name] for name in names], dtype=np.int64)

    def _set_variant(self, name: str) -> None:
        """Set `variant`, so that results of two datasets, or of one before and after a change, never meet."""
        columns = (self.ids, np.array(self.class_names)[self.labels], self.lesions)
        text = "\n".join("\t".join(row) for row in zip(*(column.tolist() for column in columns), strict=True))
        self.variant = f"{name}-{content_digest(text)[:12]}"


def part_named(name: str) -> str | None:
    """Return which of `PARTS` a name means, e.g. `test` for "Testing set"; None where it means none."""
    match = _PART.fullmatch(name)
    return match and next(part for part in PARTS if match[1].lower().startswith(part))


def _spelling(value: str) -> str:
    """Return a label or an id without regard to case, Unicode form and blanks, `1.0` as `1`."""
    text = " ".join(unicodedata.normalize("NFKC", value).split()).casefold()
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text)


class Confined:
    """Follows the paths of images that must stay within one folder.

    Parameters
    ----------
    folder : absolute, without links
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._parents: dict[str, str] = {}

    def place(self, name: str) -> tuple[str, bool]:
        """Return a path in its shortest form, relative to the folder and with slashes, and whether the file is there.

        A backslash, as Windows writes it, is a slash.

        Raises
        ------
        ValueError : the path leaves the folder, or has characters that no record could hold
        """
        check_name(name)
        text = name.replace("\\", "/")
        pieces = [piece for piece in text.split("/") if piece not in ("", ".")]
        if text.startswith("/") or text[1:3] == ":/" or ".." in pieces or not pieces:
            raise ValueError(f"is not a path within {self._folder}")
        parent = "/".join(pieces[:-1])
        if parent not in self._parents:
            self._parents[parent] = os.path.realpath(f"{self._folder}/{parent}")
        path = f"{self._parents[parent]}/{pieces[-1]}"
        if os.path.islink(path):  # noqa: PTH114  a Path for each of many thousand images is slow
            path = os.path.realpath(path)
        if not f"{path}/".startswith(f"{self._folder.rstrip('/')}/"):
            raise ValueError(f"leads out of {self._folder} by a link")
        return "/".join(pieces), os.path.isfile(path)  # noqa: PTH113


def check_name(name: str) -> None:
    """Check that a name can be printed on a line and written as UTF-8.

    Raises
    ------
    ValueError : it cannot
    """
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("has characters that are not text; rename the file")
