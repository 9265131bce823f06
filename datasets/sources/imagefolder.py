"""Your own images: a folder for each class, in `train`, `val` and `test` or not.

Source: yours.
Size: as your folders.
Licence: yours.

`--dataset imagefolder --data-root FOLDER` reads `FOLDER/<class>/...` or `FOLDER/{train,val,test}/<class>/...`, at any
depth below a class. A part may also be called `training`, `valid`, `validation` or `testing`, in any case; it is one
where all folders beside it have such names. Where the folder is divided, the split is `official`, else `paper`, by
image. The class ids are by frequency. What begins with a dot is ignored, and so is a file without the suffix of an
image. Nothing is known of lesions and patients; `csv` is for images of which something is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.datasets import register
from ltbench.datasets.images.decoding import SUFFIXES
from ltbench.datasets.sources._own_images import OwnImages, check_name
from ltbench.errors import UserError

_DEBRIS = ("__MACOSX", "lost+found")
_PARTS = {  # by the name of their folder in lower case
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}


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

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if root is None:
            raise UserError("imagefolder needs your folder: give --data-root")
        self.root = self.folder = Path(root).expanduser().resolve()
        if not self.folder.is_dir():
            raise UserError(f"the data folder {self.folder} does not exist")
        parts = _parts(self.folder)
        depth = 1 if parts else 0
        files = sorted(_image_files(self.folder, depth + 1))
        if not files:
            raise UserError(
                f"{self.folder} has no image in a folder of its class; want FOLDER/CLASS/IMAGE.jpg or alike"
            )
        self.ids = self.files = np.array(files)
        self.lesions = self.ids
        self.present = np.ones(len(files), dtype=bool)
        pieces = [file.split("/") for file in files]
        if parts:
            self.parts = np.array([parts[piece[0]] for piece in pieces])
            self.default_split = "official"
        self._set_classes([piece[depth] for piece in pieces], self.folder)
        self._require_filled(depth)
        self.title = f"folder {self.folder.name}"
        self._set_variant(self.folder.name)

    def _require_filled(self, depth: int) -> None:
        for home in _folders(self.folder) if depth else [self.folder]:
            for folder in _folders(home):
                if folder.name not in self.class_names:
                    raise UserError(f"the class folder {folder} has no image ({', '.join(SUFFIXES)}); move it away")


def _parts(root: Path) -> dict[str, str]:
    """Return the part that each folder is, none where the folders are classes."""
    names = [folder.name for folder in _folders(root)]
    parts = {name: _PARTS[name.lower()] for name in names if name.lower() in _PARTS}
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
    found = [path for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(path for path in found if path.name not in _DEBRIS)


def _image_files(root: Path, least: int) -> Iterator[str]:
    """Yield the images below a folder, relative to it and with slashes, all of them at least so many folders deep."""
    for home, folders, files in os.walk(root, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _DEBRIS]
        images = [name for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES)]
        for name in (*folders, *images):
            _check(f"{home}/{name}", name)
        for name in images:
            relative = os.path.relpath(f"{home}/{name}", root)
            if relative.count(os.sep) < least:
                raise UserError(f"the image {home}/{name} is in no class folder; move it into one, or away")
            yield relative.replace(os.sep, "/")


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
