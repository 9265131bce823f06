"""CSV tables as text, indexed by the lines of their file, with errors that name file and line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltbench.errors import UserError
from ltbench.files import require_regular

_MISSING = {
    *("", "nan", "-nan", "nat", "none", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "null", "nil"),
    *("-", "--", "?", ".", "unknown", "missing", "not available"),
}
_SEPARATORS = (";", "\t", "|")

CHECKSUMS = "ltbench-manifest.csv"
"""Name of the table of checksums that `data.py verify` leaves in a data folder: no table of a dataset."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV as text: one row a record, indexed by the line of the file where it begins, absent fields as "".

    The names of columns lose the blanks around them; columns without a name and rows without a text are left out.

    Raises
    ------
    UserError : the file is missing, unreadable, no CSV, lacks one of `columns`, has a column twice, or a row with more
        fields than columns; the message names the file, and the line of a row
    """
    records = _records(path)
    names = [name.strip() for name in next(records)[1]]
    _check_names(path, [name for name in names if name], columns)
    lines: list[int] = []
    cells: list[str] = []  # in one list: a list a row would keep the garbage collector busy for as long again
    for line, fields in records:
        if len(fields) > len(names):
            raise UserError(
                f"{path} is not a CSV table: line {line} has more fields than the header ({len(fields)}, not "
                f"{len(names)}); put a field that holds a comma in double quotes"
            )
        lines.append(line)
        cells += fields
        cells += [""] * (len(names) - len(fields))
    rows = np.array(cells, dtype=object).reshape(len(lines), len(names))
    table = pd.DataFrame(rows, index=lines, columns=names, dtype=str)
    return table.loc[:, [name != "" for name in names]]


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV that have a text, each with the line where it begins; the first is the header."""
    line = 1
    try:
        with require_regular(Path(path)).open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            if max(map(header.count, _SEPARATORS)) > header.count(","):
                raise UserError(
                    f"{path} is not a CSV table: its first line is {header.strip()[:200]!r}; separate fields by "
                    "commas, not by semicolons, tabs or bars"
                )
            file.seek(0)
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            if not any(names):
                raise UserError(f"{path} is not a CSV table: its first line names no column")
            yield line, names
            line = reader.line_num + 1
            for fields in reader:
                if any(fields):
                    yield line, fields
                line = reader.line_num + 1
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a CSV table in UTF-8 ({error.reason}); save it as one") from error
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV table: line {line}: {error}; fix the line") from error


def _check_names(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in names]
    if missing:
        held = ", ".join(names)
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}; it has: {held}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{path} has the column {repeated[0]!r} more than once; rename or remove the others")


def read_image_table(path: Path, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    """Read a CSV with one row an image, as text, indexed by its line; the first of `columns` holds the image.

    Fields lose the blanks around them.

    Raises
    ------
    UserError : the file is missing, no CSV, empty, lacks a column, or repeats or lacks an image; the message names file
        and line
    """
    table, image = read_table(path, columns).apply(lambda column: column.str.strip()), columns[0]
    if table.empty:
        raise UserError(f"{path} lists no image; {remedy}")
    refuse(path, table[image], table[image] == "", "has no image id", remedy)
    refuse(path, table[image], table[image].duplicated(), "repeats an earlier image", remedy)
    return table


def known_ids(ids: pd.Series) -> pd.Series:
    """Return ids of lesions or patients with "" for those that only say that there is none, e.g. "nan" or "NA"."""
    return ids.mask(ids.str.lower().isin(_MISSING), "")


def require_joined(path: Path, listed: Iterable[str], wanted: Sequence[str]) -> None:
    """Check that a table is one of the images to which its facts are joined.

    Parameters
    ----------
    listed : images of the table
    wanted : images whose facts it should have

    Raises
    ------
    UserError : it has fewer than half of `wanted`; the message shows an image of each side
    """
    there = set(listed)
    lacking = [image for image in wanted if image not in there]
    found = len(wanted) - len(lacking)
    if 2 * found < len(wanted):
        odd = min(there - set(wanted) or there, default="")
        raise UserError(
            f"{path} has {found} of {len(wanted)} images: it lists {odd!r}, and {lacking[0]!r} is looked for; "
            "take the table of these images, or correct its ids"
        )


def refuse(path: Path, images: pd.Series, bad: pd.Series, what: str, remedy: str) -> None:
    """Raise an error about the first row of a table, by line, that is `bad`, if there is one.

    Raises
    ------
    UserError : naming the file, the line and the image
    """
    if bad.any():
        first = int(bad.to_numpy().argmax())
        raise bad_row(path, bad.index[first], images.iloc[first], what, remedy)


def bad_row(path: Path, line: Hashable, image: Any, what: str, remedy: str) -> UserError:
    """Return the error about one row of a table."""
    return UserError(f"{path}, line {line} (image {image!r}) {what}; fix the line, or {remedy}")
