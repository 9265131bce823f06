"""Your own images: a table with a row for each, its label, and what else is known of it.

Source: yours.
Size: as your table.
Licence: yours.

`--dataset csv --data-root FOLDER` reads the one `.csv` of the folder; its columns, in any order and among others:

| column | what |
|---|---|
| `image` | path of the file, relative to the table's folder |
| `label` | name of the class |
| `group` | optional: lesion or patient; images of one group are in one part under `--split lesion` |
| `patient` | optional: patient, for the audit, and the groups where there is no column `group` |
| `part` | optional: `train`, `val`, `test` or as folders of `imagefolder`; empty: not used under `--split official` |
| `sha256` | optional: of the file, 64 hexadecimal digits; checked whenever the file is decoded |

Where there is a column `part`, the split is `official`; else, where there is a column `group` or `patient`, it is
`lesion`; else `paper`, by image; `group=` says that there are no groups. The class ids are by frequency. Fields lose
the blanks around them; a group or patient that is "nan", "none", "NA" or alike is unknown.

Options (`--dataset-option NAME=VALUE`): `table` is another table, `images` another folder of the images, `classes` the
classes in order, separated by commas (a name with a comma in double quotes); `image`, `label`, `group`, `patient`,
`part` and `sha256` name the column that is meant, e.g. `label=diagnosis`, and `part=` says that none is;
`merge_labels=true` joins labels, groups and patients that differ in case, Unicode form, blanks or as `1` and `1.0`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltbench.datasets import register
from ltbench.datasets.sources._own_images import Confined, OwnImages, part_named
from ltbench.datasets.splits.longtail import PARTS
from ltbench.datasets.tables import CHECKSUMS, bad_row, known_ids, read_table, refuse
from ltbench.errors import UserError, counted
from ltbench.files import file_hash
from ltbench.options import option
from ltbench.registry import unknown

_OPTIONAL = ("group", "patient", "part", "sha256")
_REMEDY = "leave it out"


@register("csv")
class CsvTable(OwnImages):
    """The images of a table.

    Parameters
    ----------
    root : folder of the table
    options : see `Options`

    Raises
    ------
    UserError : no table, or several; a missing column; a row without image, without label, with an unknown label or
        part, with an image listed before, outside the folder, or with a bad checksum; the message names file and line
    """

    title = "your table"

    @dataclass(frozen=True)
    class Options:
        """The table, its columns and its classes; an optional column that is not named is used where it is there."""

        table: str | None = option(None, help="file of the table; none: the one .csv in the folder")
        images: str | None = option(None, help="folder of the images, relative to the table's; none: that folder")
        image: str = option("image", help="column of the images' paths")
        label: str = option("label", help="column of the classes")
        group: str | None = option(
            None,
            help="column of the groups, lesions or patients; empty: none; not given: `group`, else that of patients",
        )
        patient: str | None = option(None, help="column of the patients, for the audit; empty: there is none")
        part: str | None = option(None, help="column of the parts; empty: there is none")
        sha256: str | None = option(None, help="column of the checksums; empty: there is none")
        classes: tuple[str, ...] = option((), help="the classes in the order of their ids; empty: by frequency")
        merge_labels: bool = option(False, help="join labels and groups that differ in spelling alone")

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        chosen = self.options
        self._table = _find_table(root, chosen.table)
        self.tables = (self._table,)
        self.root = self.folder = _image_folder(self._table.parent, chosen.images)
        optional = {name: getattr(chosen, name) for name in _OPTIONAL}
        rows = _read_rows(self._table, chosen.image, chosen.label, optional)
        self._lines = rows.index.to_numpy()
        self.ids, self.present = _place_images(self._table, rows["image"], self.folder)
        self.files = self.ids
        self._unify(rows)
        self._set_classes(rows["label"].tolist(), self._table, _known_classes(self._table, rows, chosen.classes))
        self._use_optional(rows)
        self.title = f"{self._table.name} of {self._table.parent.name}"
        self._set_variant(self._table.stem)

    def require_as_listed(self, position: int) -> None:
        """Check the checksum of the file of image `position`, where the table gives one.

        Raises
        ------
        UserError : it has another one, or cannot be read; the message names the file and the line
        """
        if not self.checksum(position):
            return
        try:
            found = file_hash(self.path(position))
        except OSError as error:
            raise self._unreadable(position, error) from error
        self.require_checksum(position, found)

    def _unify(self, rows: pd.DataFrame) -> None:
        merge = self.options.merge_labels
        unlabelled = rows["label"][known_ids(rows["label"]) == ""]
        if len(unlabelled):
            have = f"{counted(len(unlabelled), 'image')} {'has' if len(unlabelled) == 1 else 'have'}"
            said = f"{have} a label that may mean none (first: {unlabelled.iloc[0]!r})"
            self.notes += (f"{said}; it is a class here, leave these lines out if it is not",)
        rows["label"] = self._unified_labels("label", rows["label"].tolist(), merge, self.options.classes)
        for role in rows.columns.intersection(["group", "patient"]):
            rows[role] = self._unified(role, known_ids(rows[role]).tolist(), merge)

    def _use_optional(self, rows: pd.DataFrame) -> None:
        role = "patient" if "group" not in rows and self.options.group is None and "patient" in rows else "group"
        self.has_lesion_ids = role in rows
        self.group_name = getattr(self.options, role) or role
        groups = rows[role] if self.has_lesion_ids else pd.Series("", rows.index)
        self.lesions = np.where(groups == "", self.ids, groups).astype(str)
        if "patient" in rows:
            self.patients = rows["patient"].to_numpy(dtype=str)
        if "part" in rows:
            self.parts = rows["part"].to_numpy(dtype=str)
        checksums = rows["sha256"] if "sha256" in rows else pd.Series("", rows.index)
        self._checksums = checksums.str.lower().to_numpy(dtype=str)
        self.default_split = "official" if "part" in rows else "lesion" if self.has_lesion_ids else "paper"

    def checksum(self, position: int) -> str:
        """Return the SHA-256 that the table gives for image `position`, in lower case, "" where it gives none."""
        return str(self._checksums[position])

    def origin(self, position: int) -> str:
        """Return the table and the line of an image, in brackets."""
        return f" ({self._table.name}, line {self._lines[position]})"

    def _stamp(self, position: int) -> str:
        return f" {self.checksum(position)}".rstrip()


def _find_table(root: Path | None, table: str | None) -> Path:
    if root is None and table is None:
        raise UserError("csv needs the folder of your table: give --data-root")
    folder = Path(root or ".").expanduser()
    if not folder.is_dir():
        raise UserError(f"the data folder {folder} does not exist")
    if table is not None:
        path = folder / Path(table).expanduser()
        if not path.is_file():
            raise UserError(f"the table {path} does not exist; table= is relative to --data-root")
        return Path(os.path.abspath(path))  # noqa: PTH100  resolve would follow a link of the table to other images
    tables = (path for path in folder.iterdir() if path.suffix.lower() == ".csv" and not path.name.startswith("."))
    found = sorted(path for path in tables if path.name != CHECKSUMS)
    if len(found) != 1:
        names = f"several tables ({', '.join(path.name for path in found)})" if found else "no .csv table"
        raise UserError(f"{folder} has {names}; name yours with --dataset-option table=FILE")
    return Path(os.path.abspath(found[0]))  # noqa: PTH100


def _image_folder(home: Path, images: str | None) -> Path:
    folder = home / Path(images or ".").expanduser()
    if not folder.is_dir():
        raise UserError(f"the image folder {folder} does not exist; images= is relative to the table's folder")
    return folder.resolve()


def _read_rows(path: Path, image: str, label: str, optional: dict[str, str | None]) -> pd.DataFrame:
    """Return the columns in use under our own names, indexed by line, without blanks around their fields."""
    table = read_table(path, ())
    columns = {"image": image, "label": label}
    for role, column in optional.items():
        if column or (column is None and role in table):
            columns[role] = column or role
    for role, column in columns.items():
        if column not in table:
            raise UserError(
                f"{path} lacks the column {column!r}; it has: {', '.join(table.columns)}; "
                f"name the right one with --dataset-option {role}=COLUMN"
            )
    if table.empty:
        raise UserError(f"{path} lists no image")
    rows = pd.DataFrame({role: table[column].str.strip() for role, column in columns.items()}, index=table.index)
    _check_fields(path, rows)
    return rows


def _check_fields(path: Path, rows: pd.DataFrame) -> None:
    """Refuse fields that cannot be used; write the parts as they are named here."""
    images = rows["image"]
    refuse(path, images, images == "", "has no image", _REMEDY)
    refuse(path, images, rows["label"] == "", "has no label", _REMEDY)
    for role in rows.columns.intersection(["label", "group", "patient"]):  # splits and manifests list them
        refuse(path, images, rows[role].str.contains(r"[\x00-\x1f]"), f"has a {role} of several lines", _REMEDY)
    if "part" in rows:
        named = rows["part"].map(lambda name: part_named(name) if name else "")
        bad = rows["part"][named.isna()]
        what = f"has the {unknown('part', next(iter(bad), ''), PARTS)}, and none (a column of other meaning: part=)"
        refuse(path, images, named.isna(), what, _REMEDY)
        rows["part"] = named
    if "sha256" in rows:
        malformed = ~rows["sha256"].str.fullmatch("([0-9a-fA-F]{64})?")
        refuse(path, images, malformed, "has a SHA-256 that is not 64 hexadecimal digits", _REMEDY)


def _place_images(path: Path, images: pd.Series, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the path of each image within the folder, str [N], and whether the file is there, bool [N]."""
    confined, placed = Confined(str(folder)), []
    for line, name in images.items():
        try:
            placed.append(confined.place(name))
        except (ValueError, OSError) as error:
            raise bad_row(path, line, name, str(error), _REMEDY) from error
    ids = pd.Series([name for name, _ in placed], images.index)
    refuse(path, images, ids.duplicated(), "repeats an earlier image", _REMEDY)
    return ids.to_numpy(dtype=str), np.array([there for _, there in placed], dtype=bool)


def _known_classes(path: Path, rows: pd.DataFrame, known: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the classes that the user named, after checking them against the labels; None: none named."""
    if not known:
        return None
    repeated = [name for name, count in Counter(known).items() if count > 1]
    if repeated or "" in known:
        raise UserError(f"classes= repeats {repeated[0]!r}" if repeated else "classes= has a name that is empty")
    others = rows["label"][~rows["label"].isin(known)]
    what = f"has the unknown label {next(iter(others), '')!r}; classes= knows: {', '.join(known)}"
    refuse(path, rows["image"], ~rows["label"].isin(known), what, _REMEDY)
    unused = [name for name in known if name not in set(rows["label"])]
    if unused:
        raise UserError(f"{path} has no image of the class {unused[0]!r}, which classes= names; leave it out there")
    return known
