"""MedMNIST: eleven sets of small medical images (dermatoscopy, pathology, X-ray, CT, ...) from their npz files.

Source: Yang et al., Scientific Data 10, 41 (2023), and MedMNIST+; files at https://zenodo.org/records/10519652.
Size: depends on the set, up to 236,386 images.
Licence: CC BY 4.0; the set dermamnist CC BY-NC 4.0.

A set is `<set>.npz` at 28 pixels and `<set>_64.npz`, `<set>_128.npz`, `<set>_224.npz` above, as the `medmnist` package
names them; the package itself is not needed. `medmnist.csv` holds its facts (medmnist 3.0.2, info.py): classes, parts,
licences, MD5 sums. The grades of retinamnist are nameless there and are called `grade 0` to `grade 4` here.

The sets have parts of their own, the default split, and are unbalanced by nature, the default ratio. The parts of
dermamnist share lesions (Abhishek et al., arXiv:2401.14497): HAM10000 has several images of a lesion and was divided by
image. The files name no lesion and no patient, so `--split lesion` cannot fix that; the dataset `ham10000` can.

Files may be larger than memory (pathmnist at 224 pixels: 16 GB), so large ones are read as a stream, in order.
"""

from __future__ import annotations

import csv
import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from ltbench.datasets import register
from ltbench.datasets.base import Source
from ltbench.datasets.splits.longtail import PARTS
from ltbench.errors import UserError
from ltbench.files import fingerprint
from ltbench.options import option
from ltbench.registry import unknown

if TYPE_CHECKING:
    from ltbench.datasets.download.remote import Remote

SIZES = (28, 64, 128, 224)
_RECORD = "https://zenodo.org/records/10519652"
_FACTS = Path(__file__).with_suffix(".csv")
_HELD = 128 * 2**20  # bytes of a part up to which it is unpacked into memory, in each process that decodes
_PIECE = 2**20
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What zipfile, zlib and numpy raise on bytes that are not theirs.
_DAMAGE = (
    *(OSError, EOFError, ValueError, NotImplementedError, RuntimeError, SyntaxError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True)
class MedSet:
    """What is known of a set before its file is read.

    Attributes
    ----------
    task : `multi-class`, `binary-class`, `ordinal-regression`, or `multi-label, binary-class`
    images : number of images by part
    md5 : of the file, by size
    source : the publications of the original images
    """

    name: str
    task: str
    licence: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    md5: Mapping[int, str]
    source: str

    def file_name(self, size: int) -> str:
        """Return the name of the file with images of a size."""
        return f"{self.name}.npz" if size == SIZES[0] else f"{self.name}_{size}.npz"

    def url(self, size: int) -> str:
        """Return where the file with images of a size is got."""
        return f"{_RECORD}/files/{self.file_name(size)}?download=1"


@cache
def med_sets() -> Mapping[str, MedSet]:
    """Return the two-dimensional sets by name, chestmnist included, which has several labels an image."""
    with _FACTS.open(encoding="utf-8", newline="") as file:
        return {
            row["set"]: MedSet(
                name=row["set"],
                task=row["task"],
                licence=row["licence"],
                classes=tuple(row["classes"].split("|")),
                images={part: int(row[part]) for part in PARTS},
                md5={size: row[f"md5_{size}"] for size in SIZES},
                source=row["source"],
            )
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True)
class _Array:
    """An array of a npz file: its member, checksum, and the bytes before its first element."""

    member: str
    checksum: int
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


@register("medmnist")
class MedMnist(Source):
    """One set of MedMNIST at one size, with one label an image.

    Parameters
    ----------
    root : folder of the npz files
    options : see `Options`

    Raises
    ------
    UserError : unknown set or size, or one with several labels an image; a file that is missing, truncated or corrupt,
        lacks an array, or has one of another type or shape, or an unknown class; the message names file and row
    """

    title = "MedMNIST"
    licence = "CC BY 4.0; dermamnist CC BY-NC 4.0"
    citation = "Yang et al., Scientific Data 10, 41 (2023)"
    website = _RECORD
    preset = "paper"
    default_ratio = "natural"
    default_split = "official"
    default_n_max = "auto"
    default_val_per_class = None
    default_test_per_class = None
    revision = 1  # raise when any decoded pixel changes

    @dataclass(frozen=True)
    class Options:
        """Which file is read."""

        set: str = option("dermamnist", help="name of the set")
        size: Literal[28, 64, 128, 224] | None = option(
            None,
            help="side of the images in the file; none: the smallest of image_size or more, else the largest",
        )
        image_size: int | None = option(None, low=1, help="side of the network's images; none: the run's, or 224")

    def __init__(self, root: Path | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        facts = _known_set(self.options.set)
        if root is None:
            raise UserError(f"medmnist needs the folder of its npz files (--data-root); get them from {_RECORD}")
        self.root = folder = Path(root).expanduser()
        size = _choose_size(folder, facts, self.options.size, self.options.image_size)
        self._path = folder / facts.file_name(size)
        self._url = facts.url(size)
        labels, self._images = _read_tables(self._path, facts, size)
        counts = [len(each) for each in labels]
        self._starts = np.cumsum([0, *counts])
        self._stream: IO[bytes] | None = None
        self._streamed: _Array | None = None

        self.class_names = facts.classes
        self.special_classes = tuple(name for name in facts.classes if name == "melanoma")
        self.licence = facts.licence
        self.citation = f"{type(self).citation}; {facts.source}"
        self.variant = f"{facts.name}-{size}"
        self.title = f"MedMNIST {facts.name} {size} px"
        if counts != (whole := [facts.images[part] for part in PARTS]):
            self.title += f", {sum(counts):,} images instead of {sum(whole):,}"
        self.parts = np.repeat(PARTS, counts)
        self.labels = np.concatenate(labels)
        rows = zip(PARTS, counts, strict=True)
        self.ids = np.array([f"{facts.name}_{part}_{row:06d}" for part, count in rows for row in range(count)])
        self.lesions = self.ids
        self.present = np.ones(len(self.ids), dtype=bool)

    def __getstate__(self) -> dict[str, object]:
        """Leave the open file behind: each process reads its own."""
        return {**self.__dict__, "_stream": None, "_streamed": None}

    @classmethod
    def found_at(cls, root: Path) -> bool:
        """Return whether a folder holds the file of any set."""
        return any((root / facts.file_name(size)).is_file() for facts in med_sets().values() for size in SIZES)

    @classmethod
    def remotes(cls, **options: Any) -> tuple[Remote, ...]:
        """Return the file of a set at a size, by default the smallest, as the `medmnist` package does.

        Raises
        ------
        UserError : unknown set or size, or a set with several labels an image
        """
        from ltbench.datasets.download.remote import Remote

        chosen = cls.configured(options)
        facts, size = _known_set(chosen.set), chosen.size or SIZES[0]
        return (Remote(facts.url(size), facts.file_name(size), checksum=f"md5:{facts.md5[size]}"),)

    def read(self, position: int, size: int) -> np.ndarray:
        """Return image `position` resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

        Images are read fastest in ascending order.

        Raises
        ------
        UserError : the file is gone, corrupt or truncated; the message names it
        """
        part = int(np.searchsorted(self._starts, position, side="right")) - 1
        array = self._images[part]
        count = math.prod(array.shape[1:])
        with _naming(self._path, self._url):
            if self._streamed is not array:
                self._stream, self._streamed = None, array
                self._stream = _open_images(self._path, array)
            if self._stream is None:  # a large file is not checked again for each of its images
                raise UserError(f"{self._path}: {array.member} is damaged; get the file again from {self._url}")
            self._stream.seek(array.offset + (position - int(self._starts[part])) * count)
            pixels = np.frombuffer(self._stream.read(count), dtype=np.uint8).reshape(array.shape[1:])
        image = Image.fromarray(pixels).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return int64 [n], non-zero, from the checksum of the images of each part, as the file states it."""
        texts = [f"{array.checksum} {array.shape}" for array in self._images]
        marks = np.array([fingerprint(text.encode()) for text in texts], dtype=np.int64)
        numbers = marks[np.searchsorted(self._starts, positions, side="right") - 1] + np.asarray(positions)
        return np.where(numbers == 0, 1, numbers)


def _known_set(name: str) -> MedSet:
    single = [facts.name for facts in med_sets().values() if not facts.task.startswith("multi-label")]
    if name.endswith("3d"):
        raise UserError(f"medmnist: {name!r} holds volumes, and images are needed; known: {', '.join(single)}")
    if name not in med_sets():
        raise unknown("set of medmnist", name, single)
    if name not in single:
        raise UserError(
            f"medmnist: {name} has several labels an image, and the benchmark needs one; known: {', '.join(single)}"
        )
    return med_sets()[name]


def _choose_size(root: Path, facts: MedSet, size: int | None, image_size: int | None) -> int:
    """Return the size of the file to read, having checked that it is there."""
    if not root.is_dir():
        raise UserError(f"the data folder {root} does not exist; put {facts.file_name(28)} there, from {facts.url(28)}")
    here = [side for side in SIZES if (root / facts.file_name(side)).is_file()]
    if size is None:
        if not here:
            names = ", ".join(facts.file_name(side) for side in SIZES)
            raise UserError(f"{root} has none of {names}; get one from {_RECORD}")
        return next((side for side in here if side >= (image_size or SIZES[-1])), here[-1])
    if size not in here:
        others = f" (there is size {', '.join(map(str, here))})" if here else ""
        raise UserError(f"{root / facts.file_name(size)} is missing{others}; get it from {facts.url(size)}")
    return size


@contextmanager
def _naming(path: Path, url: str) -> Iterator[None]:
    """Turn what a damaged file raises into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {reason}; get it again from {url}") from error


def _read_tables(path: Path, facts: MedSet, size: int) -> tuple[list[np.ndarray], list[_Array]]:
    """Return the labels of each part, int64 [n], and where its images lie."""
    labels, images = [], []
    with _naming(path, facts.url(size)), zipfile.ZipFile(path) as archive:
        for part in PARTS:
            labels.append(_read_labels(archive, f"{part}_labels", path, len(facts.classes)))
            images.append(_find_images(archive, f"{part}_images", path, len(labels[-1]), size))
    return labels, images


def _find_array(archive: zipfile.ZipFile, key: str, path: Path) -> _Array:
    """Return where an array lies; its bytes are as many as its header says."""
    member = f"{key}.npy"
    if member not in archive.namelist():
        raise UserError(f"{path} lacks the array {key}; it needs images and labels of {', '.join(PARTS)}")
    facts = archive.getinfo(member)
    with archive.open(facts) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise UserError(f"{path}: the array {key} is in version {version} of the npy format; save it again")
        shape, by_column, dtype = _HEADERS[version](stream)
        offset = stream.tell()
    if by_column:
        raise UserError(f"{path}: the array {key} is stored by column; save it again, by row")
    if dtype.kind not in "iu":
        raise UserError(f"{path}: the array {key} has the type {dtype}; whole numbers are needed")
    if facts.file_size != offset + math.prod(shape) * dtype.itemsize:
        raise UserError(f"{path}: the array {key} is not as long as its shape {shape} says; get the file again")
    return _Array(member, facts.CRC, offset, dtype, shape)


def _read_labels(archive: zipfile.ZipFile, key: str, path: Path, classes: int) -> np.ndarray:
    """Return the labels of a part: int64 [n], from whole numbers [n, 1] or [n]."""
    array = _find_array(archive, key, path)
    if array.shape[1:] not in ((), (1,)) or not array.shape:
        raise UserError(f"{path}: the array {key} has the shape {array.shape}; one label an image is needed, [n, 1]")
    values = np.frombuffer(archive.read(array.member)[array.offset :], dtype=array.dtype)
    wrong = np.flatnonzero((values < 0) | (values >= classes))
    if len(wrong):
        raise UserError(
            f"{path}: row {wrong[0]} of {key} is {values[wrong[0]]}; the set has the classes 0 to {classes - 1}"
        )
    return values.astype(np.int64)


def _find_images(archive: zipfile.ZipFile, key: str, path: Path, count: int, size: int) -> _Array:
    """Return where the images of a part lie: uint8 [n, size, size] or [n, size, size, 3]."""
    array = _find_array(archive, key, path)
    if array.dtype != np.uint8 or array.shape not in ((count, size, size), (count, size, size, 3)):
        raise UserError(
            f"{path}: the array {key} is {array.dtype} {array.shape}; uint8 ({count}, {size}, {size}) or "
            f"({count}, {size}, {size}, 3) is needed, one image a label"
        )
    return array


def _open_images(path: Path, array: _Array) -> IO[bytes]:
    """Return the array's bytes as a file, after a check of its checksum: no image of a damaged file is ever used."""
    with zipfile.ZipFile(path) as archive:
        facts = archive.getinfo(array.member)
        if facts.file_size <= _HELD:
            return io.BytesIO(archive.read(facts))
        with archive.open(facts) as stream:
            while stream.read(_PIECE):
                pass
        return archive.open(facts)
