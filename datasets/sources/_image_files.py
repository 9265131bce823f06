"""Datasets whose images are files: found in folders, read, and distinguished by size and time of change."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltbench.datasets.base import Source
from ltbench.datasets.images.decoding import DAMAGE, SUFFIXES, damage_line, read_image
from ltbench.errors import UserError
from ltbench.files import fingerprint


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
        self.require_as_listed(position)
        try:
            return read_image(self._path(position), size)
        except DAMAGE as error:
            raise self._unreadable(position, error) from error

    def require_as_listed(self, position: int) -> None:
        """Check that the file of image `position` is the one that the tables list; here they list names alone.

        Raises
        ------
        UserError : it is another one; the message names the file
        """

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero, from size, place and times of change of each file.

        A file that replaces another one keeps neither its place (inode) nor its time, whatever `cp -p` does.

        Raises
        ------
        UserError : an image is missing or no file; the message names it
        """
        return np.array([self._fingerprint(int(position)) for position in positions], dtype=np.int64)

    def contents(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n] from the bytes of each file.

        Raises
        ------
        UserError : as `fingerprints`
        """
        return np.array([self._content(int(position)) for position in positions], dtype=np.int64)

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
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        return fingerprint(f"{status.st_size} {status.st_ino} {times}{self._stamp(position)}".encode())

    def _content(self, position: int) -> int:
        self._require(position)
        try:
            return fingerprint(self.path(position).read_bytes() + self._stamp(position).encode())
        except OSError as error:
            raise self._unreadable(position, error) from error

    def _unreadable(self, position: int, error: BaseException) -> UserError:
        image = f"{self._path(position)}{self.origin(position)}"
        return UserError(f"cannot read the image {image}: {damage_line(error)}; {self.remedy}")


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
