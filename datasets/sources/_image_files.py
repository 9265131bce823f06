"""Image files: found, read as RGB, and told apart by size and time of change, for every source that has files.

How an image becomes RGB:

- It is shown as its EXIF orientation says, as viewers show it.
- Grey is repeated, a palette looked up, CMYK converted without a colour profile.
- What is transparent lies on white.
- Of 16 bits a channel the upper 8 are kept, unstretched: a picture that uses 12 of 16 bits comes out dark, and is to be
  stretched beforehand. Channels of 32 bits or of fractions are refused, since nobody knows their range.
- Of several frames or pages the first is read.

Files are decoded as what they are, whatever their suffix says, but only as one of `FORMATS`: no decoder that runs
other programs is ever asked. An image of more than 179 million pixels is refused (twice `PIL.Image.MAX_IMAGE_PIXELS`).
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ltbench.datasets.base import Source
from ltbench.datasets.splits.manifest import read_table
from ltbench.errors import UserError
from ltbench.files import fingerprint

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on a file that is damaged or something else altogether.
DAMAGE = (OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
DAMAGE += (MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError)


class FileSource(Source):
    """A source whose images are files.

    Attributes
    ----------
    folder : that `files` are relative to
    files : str [N], file of each image; of one that is missing, where it is expected
    remedy : what to do about a file that is missing or damaged
    """

    folder: Path
    files: np.ndarray
    remedy: str

    def path(self, position: int) -> Path:
        """Return the file of image `position`, whether it is there or not."""
        return Path(self._path(position))

    def read(self, position: int, size: int) -> np.ndarray:
        """Return image `position` resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

        Raises
        ------
        UserError : the image is missing, corrupt, truncated or too large; the message names the file
        """
        self._require(position)
        try:
            return read_image(self._path(position), size)
        except DAMAGE as error:
            raise self._unreadable(position, error) from error

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero, from size and time of change of each file.

        Raises
        ------
        UserError : an image is missing or no file; the message names it
        """
        return np.array([self._fingerprint(int(position)) for position in positions], dtype=np.int64)

    def _path(self, position: int) -> str:
        return os.path.join(self.folder, self.files[position])  # noqa: PTH118  a Path costs more than a stat

    def origin(self, position: int) -> str:
        """Return where the image is listed, to follow its name in a message."""
        return ""

    def _expected_at(self, first: int) -> str:
        return f" under {self.folder} (first: {Path(str(self.files[first])).name}{self.origin(first)})"

    def _stamp(self, position: int) -> str:
        """Return what else than the file makes the image another one."""
        return ""

    def _require(self, position: int) -> None:
        if not self.present[position]:
            raise UserError(f"the image {self._path(position)}{self.origin(position)} is missing; {self.remedy}")

    def _fingerprint(self, position: int) -> int:
        self._require(position)
        try:
            status = os.stat(self._path(position))  # noqa: PTH116  Path.stat costs twice as much, and there are thousands
            if not stat.S_ISREG(status.st_mode):
                raise OSError("it is not a file")
        except OSError as error:
            raise self._unreadable(position, error) from error
        text = f"{status.st_size} {status.st_mtime_ns}{self._stamp(position)}".encode()
        return fingerprint(text)

    def _unreadable(self, position: int, error: BaseException) -> UserError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UserError(
            f"cannot read the image {self._path(position)}{self.origin(position)}: "
            f"{' '.join(reason.split())[:200]}; {self.remedy}"
        )


def read_image(path: str, size: int) -> np.ndarray:
    """Return the image of a file resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

    Raises
    ------
    OSError, ValueError, ... : the file is missing, corrupt, truncated or too large; Pillow's errors are many
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image can be read or it cannot; in a progress bar nobody reads warnings
        if not os.path.isfile(path) and os.path.exists(path):  # noqa: PTH110, PTH113  opening a pipe would wait for ever
            raise OSError("it is not a file")
        with Image.open(path, formats=FORMATS) as image:
            image.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size where that does
            image.load()
            small = upright(image, to_rgb(image).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """Return the pixels of an image turned as its EXIF orientation says; the image is loaded, else a TIFF turns twice.

    Parameters
    ----------
    image : as it was opened
    pixels : made from it, without EXIF data of their own
    """
    turn = _TURNS.get(_orientation(image))
    return pixels if turn is None else pixels.transpose(turn)


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except DAMAGE:  # broken EXIF data do not spoil the pixels
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, on white where it is transparent; ValueError for channels of 32 bits."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its channels have 32 bits; save it with 8 or 16")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def locate(root: Path, ids: np.ndarray, preferred: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Find the files `<id>.<suffix>` of images, each folder listed once.

    The first group of `preferred` folders that holds any goes before the root, the root before all other folders
    directly below it. So images of two sizes are never mixed unnoticed.

    Parameters
    ----------
    ids : str [N]
    preferred : groups of folders, relative to the root

    Returns
    -------
    str [N] : the files, relative to the root; of an image that is missing, `<id>.jpg` in the first preferred folder
    bool [N] : whether the file is there

    Raises
    ------
    UserError : a folder cannot be listed, or an image is in several folders of which none is preferred
    """
    wanted = set(ids.tolist())
    found: dict[str, str] = {}
    for group in (*preferred, (".",)):
        for folder in group:
            for image, file in _list_images(root, folder, wanted).items():
                found.setdefault(image, file)
        if found:
            break
    else:
        found = _search(root, wanted)
    expected = preferred[0][0]
    files = [found.get(image) or f"{expected}/{image}.jpg" for image in ids.tolist()]
    return np.array(files, dtype=str), np.array([image in found for image in ids.tolist()], dtype=bool)


def _search(root: Path, wanted: set[str]) -> dict[str, str]:
    """Return the file of each image found in any folder directly below the root."""
    found: dict[str, str] = {}
    for folder in sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not path.name.startswith(".") and os.access(path, os.R_OK | os.X_OK)
    ):
        for image, file in _list_images(root, folder.name, wanted).items():
            if image in found:
                names = f"{Path(found[image]).parent}, {folder.name}"
                raise UserError(f"{root} has the image {image} in several folders ({names}); move one of them away")
            found[image] = file
    return found


def _list_images(root: Path, folder: str, wanted: set[str]) -> Mapping[str, str]:
    path = root / folder
    if not path.is_dir():
        return {}
    names: dict[str, str] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122  a Path for each of 25,000 entries is slow
                # With two files of one image the choice must not hang on the order of the folder.
                if stem in wanted and suffix.lower() in SUFFIXES:
                    names[stem] = min(entry.name, names.get(stem, entry.name))
    except OSError as error:
        raise UserError(f"cannot list the image folder {path}: {error.strerror}") from error
    return names if folder == "." else {stem: f"{folder}/{name}" for stem, name in names.items()}


def require_folder(name: str, root: Path | None, files: Sequence[str], website: str) -> Path:
    """Return the folder of a dataset after checking that it has these files.

    Raises
    ------
    UserError : no folder given, folder or file missing
    """
    if root is None:
        raise UserError(f"{name} needs its folder (--data-root) with {files[0]}; get it from {website}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"the data folder {root} does not exist; get the data from {website}")
    for file in files:
        if not (root / file).is_file():
            raise UserError(f"{root / file} is missing; get it from {website}")
    return root


def read_image_table(path: Path, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    """Read a CSV with one row an image, as text, indexed by its line; the first of `columns` holds the image.

    Raises
    ------
    UserError : the file is missing, no CSV, empty, lacks a column, or repeats or lacks an image; the message names file
        and line
    """
    table, image = read_table(path, columns), columns[0]
    if table.empty:
        raise UserError(f"{path} lists no image; {remedy}")
    refuse(path, table[image], table[image] == "", "has no image id", remedy)
    refuse(path, table[image], table[image].duplicated(), "repeats an earlier image", remedy)
    return table


def refuse(path: Path, images: pd.Series, bad: pd.Series, what: str, remedy: str) -> None:
    """Raise an error about the first row of a table, by line, that is `bad`, if there is one.

    Raises
    ------
    UserError : naming the file, the line and the image
    """
    if bad.any():
        raise bad_row(path, bad.idxmax(), images[bad.idxmax()], what, remedy)


def bad_row(path: Path, line: int, image: str, what: str, remedy: str) -> UserError:
    """Return the error about one row of a table."""
    return UserError(f"{path}, line {line} (image {image!r}) {what}; mend the line, or {remedy}")
