"""Your own images: a folder for each class, in `train`, `val` and `test` or not.

Source: yours.
Size: as your folders.
Licence: yours.

`--dataset imagefolder --data-root FOLDER` reads `FOLDER/<class>/...` or `FOLDER/{train,val,test}/<class>/...`, at any
depth below a class. A part may also be called `training`, `valid`, `validation` or `testing`, with `set` behind it or
not, in any case; it is one where all folders beside it have such names. Where the folder is divided, the split is
`official`, else `paper`, by image. The class ids are by frequency. Nothing is known of lesions and patients; `csv` is
for images of which something is.

Left out, and counted in a note, are files of other suffixes or none (`.gif`, `.dcm`, ..., but not `.txt` and the like),
folders of thumbnails (`@eaDir`), what begins with a dot, and `x_mask.png` beside `x.png`.

Options (`--dataset-option NAME=VALUE`): `class_level=1` says that the outer folders are the classes, `class_level=2`
that those within them are; `merge_labels=true` joins classes that differ in case, Unicode form or blanks.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.datasets import register
from ltbench.datasets.images.decoding import SUFFIXES
from ltbench.datasets.sources._own_images import OwnImages, check_name, part_named
from ltbench.errors import UserError
from ltbench.options import option

_DEBRIS = ("__macosx", "lost+found", "@eadir", "#recycle", "thumbnails", "thumbs")  # in lower case
_NO_IMAGES = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".log", ".ini", ".db")
_MASK = re.compile(r"(.+?)[ _-]+(?:masks?|seg|segmentation|superpixels)(?:[ _-]?\d+)?", re.IGNORECASE)


@register("imagefolder")
class ImageFolder(OwnImages):
    """The images of a folder.

    Parameters
    ----------
    root : the folder

    Raises
    ------
    UserError : folder missing; no or one class; two folders of one part, or parts beside other folders; a class without
        an image, an image without a class, a link, or a name that is not text; the message names the file
    """

    title = "your folder"

    @dataclass(frozen=True)
    class Options:
        """Which folders are the classes, and which of them are one."""

        class_level: int | None = option(
            None, low=1, high=2, help="1: the outer folders are the classes; 2: those within; none: as their names say"
        )
        merge_labels: bool = option(False, help="join classes that differ in spelling alone")

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if root is None:
            raise UserError("imagefolder needs your folder: give --data-root")
        self.root = self.folder = Path(root).expanduser().resolve()
        if not self.folder.is_dir():
            raise UserError(f"the data folder {self.folder} does not exist")
        parts, depth = _levels(self.folder, self.options.class_level)
        listing = _listed(self.folder, depth + 1)
        files = sorted(listing.images)
        if not files:
            wanted = "; want FOLDER/CLASS/IMAGE.jpg or alike"
            raise UserError(
                "; ".join([f"{self.folder} has no image in a folder of its class{wanted}", *listing.notes()])
            )
        self.notes = listing.notes()
        self.ids = self.files = np.array(files)
        self.lesions = self.ids
        self.present = np.ones(len(files), dtype=bool)
        pieces = [file.split("/") for file in files]
        if parts:
            self.parts = np.array([parts[piece[0]] for piece in pieces])
            self.default_split = "official"
        names = [piece[depth] for piece in pieces]
        self._require_filled(depth, names)
        self._set_classes(self._unified_labels("class name", names, self.options.merge_labels), self.folder)
        self.title = f"folder {self.folder.name}"
        self._set_variant(self.folder.name)

    def _require_filled(self, depth: int, names: Sequence[str]) -> None:
        filled = set(names)
        for home in _folders(self.folder) if depth else [self.folder]:
            for folder in _folders(home):
                if folder.name not in filled:
                    raise UserError(f"the class folder {folder} has no image ({', '.join(SUFFIXES)}); move it away")


def _levels(root: Path, class_level: int | None) -> tuple[dict[str, str], int]:
    """Return the part that each outer folder is, none where they are no parts, and the depth of the class folders."""
    if class_level == 1:
        return {}, 0
    parts = _parts(root)
    if parts or class_level == 2:
        return parts, 1
    outer = _folders(root)
    inner = Counter(each.name for folder in outer for each in _folders(folder))
    repeated = [name for name, count in inner.items() if count > 1]
    if repeated and len(inner) > 1 and not any(_is_image(file.name) for home in outer for file in home.iterdir()):
        raise UserError(
            f"{root} has the folders {_some(folder.name for folder in outer)}, and in several {_some(repeated)}: "
            "either may be the classes; --dataset-option class_level=1 takes the outer folders, class_level=2 the inner"
        )
    return {}, 0


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (", ..." if len(ordered) > 3 else "")


def _parts(root: Path) -> dict[str, str]:
    """Return the part that each folder is, none where the folders are classes."""
    names = [folder.name for folder in _folders(root)]
    parts = {name: part for name in names if (part := part_named(name)) is not None}
    others = [name for name in names if name not in parts]
    if others and len(set(parts.values())) > 1 and "train" in parts.values():
        raise UserError(f"{root} has the parts {', '.join(parts)} and also {others[0]!r}; move it away")
    if others:
        return {}
    for part in parts.values():
        same = [name for name in parts if parts[name] == part]
        if len(same) > 1:
            raise UserError(f"{root} has the part {part} twice, as {' and '.join(same)}; join them, or move one away")
    return parts


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir() and not _is_debris(path.name))


def _is_debris(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _DEBRIS


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


@dataclass
class _Listing:
    """The images below a folder, relative to it and with slashes, and those that are left out, by the reason."""

    images: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, files: Sequence[str]) -> None:
        if files:
            self.left_out.setdefault(reason, []).extend(files)

    def notes(self) -> tuple[str, ...]:
        """Return one line about what is left out, if there is anything."""
        counted = [f"{len(files)} {reason} (first: {min(files)})" for reason, files in self.left_out.items()]
        return (f"left out: {', '.join(counted)}",) if counted else ()


def _listed(root: Path, least: int) -> _Listing:
    """List the images below a folder, all of them at least so many folders deep."""
    found = _Listing()
    for home, folders, files in os.walk(root, onerror=_refuse_folder):
        place = "" if home == str(root) else f"{os.path.relpath(home, root)}/".replace(os.sep, "/")
        debris = [f"{place}{name}" for name in folders if _is_debris(name)]
        folders[:] = [name for name in folders if not _is_debris(name)]
        images = [name for name in files if _is_image(name)]
        for name in (*folders, *images):
            _check(f"{home}/{name}", name)
        if images and place.count("/") < least:
            raise UserError(f"the image {home}/{images[0]} is in no class folder; move it into one, or away")
        stems = {os.path.splitext(name)[0] for name in images}  # noqa: PTH122
        masks = [name for name in images if _is_mask(name, stems)]
        found.images += [f"{place}{name}" for name in images if name not in masks]
        found.leave_out("masks beside their images", [f"{place}{name}" for name in masks])
        hidden = [name for name in files if name.startswith(".") and name.lower().endswith(SUFFIXES)]
        found.leave_out("hidden images", [f"{place}{name}" for name in hidden])
        for suffix, names in _by_suffix(files).items():
            found.leave_out(f"files with {suffix}, which are not read", [f"{place}{name}" for name in names])
        for folder in debris:
            images_within = [each for _, _, names in os.walk(root / folder) for each in names if _is_image(each)]
            found.leave_out("images in folders of thumbnails and the like", [folder] * len(images_within))
    return found


def _is_mask(name: str, stems: set[str]) -> bool:
    match = _MASK.fullmatch(os.path.splitext(name)[0])  # noqa: PTH122
    return match is not None and match[1] in stems


def _by_suffix(files: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in files:
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix not in (*SUFFIXES, *_NO_IMAGES) and not name.startswith("."):
            found.setdefault(f"the suffix {suffix}" if suffix else "no suffix", []).append(name)
    return found


def _check(path: str, name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise UserError(f"{path!r} {error}") from None
    if os.path.islink(path):  # noqa: PTH114
        raise UserError(
            f"{path} is a link, which is not followed; put the file itself there, or list it in a table (csv)"
        )


def _refuse_folder(error: OSError) -> None:
    raise UserError(f"cannot list the folder {error.filename}: {error.strerror}") from error
