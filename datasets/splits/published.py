"""The split files that the authors of Flexible Sampling published: names as .npy, labels as a pickled dictionary.

The dictionary is never given to a general unpickler: see `read_label_dictionary`.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import sys
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ltbench.datasets.base import NATURAL
from ltbench.datasets.splits.longtail import PARTS
from ltbench.errors import UserError
from ltbench.files import require_regular

_SUFFIX = re.compile(r"\.(?:jpe?g|png)$", re.IGNORECASE)
# What numpy's header parser and array reader raise on a file that is damaged or something else altogether.
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError)
# What the unpickler raises on data that are not what they should be.
_UNPICKLABLE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError),
    *(OverflowError, MemoryError, RecursionError),
)


def read_names(path: Path) -> np.ndarray:
    """Read an array of file names: str [n], as stored, with their suffixes.

    Raises
    ------
    UserError : the file is missing, damaged, an array of objects, or not a list of names; the message names it
    """
    try:
        with require_regular(Path(path)).open("rb") as file:
            names = np.lib.format.read_array(file, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"cannot read the split file {path}: {_reason(error)}") from error
    if names.dtype.kind != "U" or names.ndim != 1 or not names.nbytes:
        raise UserError(f"the split file {path} is not a one-dimensional array of file names")
    names = names.astype(names.dtype.newbyteorder("="))
    if names.view(np.uint32).max() > sys.maxunicode:  # numpy finds out when a name is used
        raise UserError(f"the split file {path} is damaged: it holds numbers that are no characters")
    return names


def read_label_dictionary(path: Path) -> dict[str, int]:
    """Read `dic.npy`, a pickled 0-d object array that holds a dictionary: file name, as stored, to class id (>= 0).

    Only inert stand-ins are made for the few numpy names that such a pickle needs, and every other name is refused,
    so that a hostile file cannot run anything.

    Raises
    ------
    UserError : the file is missing, damaged, or holds anything else; the message names it
    """
    try:
        with require_regular(Path(path)).open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"unknown format version {version}")
            shape, _, dtype = readers[version](file)
            pickled = file.read()
    except _UNREADABLE as error:
        raise UserError(f"cannot read the label dictionary {path}: {_reason(error)}") from error
    if shape != () or dtype != np.dtype(object):
        raise UserError(f"the label dictionary {path} is not a 0-d object array but {dtype} {list(shape)}")
    try:
        labels = _unpickle(pickled)
    except _UNPICKLABLE as error:
        raise UserError(f"refused to load the label dictionary {path}: {_reason(error)}") from error
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"the label dictionary {path} holds no dictionary of names")
    for name, label in labels.items():
        if type(name) is not str or type(label) is not int or label < 0:
            entry = f"{name!r:.80}: {label}" if type(name) is str and type(label) is int else f"a {_kinds(name, label)}"
            raise UserError(f"the label dictionary {path} holds {entry}; want file names with class ids (0, 1, ...)")
    return labels


def part_path(split_dir: Path, part: str, ratio: float | str) -> Path:
    """Return the file that lists a part: `<part>_<ratio>.npy`, or `<part>.npy` in a folder of one split.

    The names in a folder of one split do not tell its ratio, so that it goes by the natural one alone.

    Raises
    ------
    UserError : the folder or the file is missing, or has another ratio; the message says which ratios are there
    """
    split_dir = Path(split_dir)
    if not split_dir.is_dir():
        raise UserError(f"the split folder {split_dir} does not exist")
    ratios = {path.stem.partition("_")[2] for path in split_dir.glob("train_*.npy")}
    path = split_dir / (f"{part}_{_spelled(ratio)}.npy" if ratios else f"{part}.npy")
    if ratios and _spelled(ratio) not in ratios:
        known = ", ".join(sorted(ratios, key=lambda text: (len(text), text)))
        raise UserError(f"the split folder {split_dir} has no split of ratio {_spelled(ratio)}; it has: {known}")
    if not path.is_file():
        raise UserError(f"the split folder {split_dir} lacks {path.name}; want train, val and test as .npy files")
    if not ratios and ratio != NATURAL:
        raise UserError(
            f"the split folder {split_dir} has one split, whose ratio is that of its images; "
            f"use --ratio {NATURAL}, not {_spelled(ratio)}"
        )
    return path


def published_split(split_dir: Path, ratio: float | str) -> dict[str, np.ndarray]:
    """Return the image ids, str [n], of "train", "val" and "test": file names without their suffixes.

    Raises
    ------
    UserError : a file is missing, damaged, or lists a name twice; the message names it
    """
    split = {}
    for part in PARTS:
        path = part_path(split_dir, part, ratio)
        names = np.array([_SUFFIX.sub("", name) for name in read_names(path).tolist()])
        values, counts = np.unique(names, return_counts=True)
        if (counts > 1).any():
            raise UserError(f"the split file {path} lists {values[counts > 1][0]} twice")
        split[part] = names
    return split


def positions_of(names: np.ndarray, ids: np.ndarray, path: Path) -> np.ndarray:
    """Return where the names of a split file, str [n], are among all ids, str [N]: int64 [n].

    Raises
    ------
    UserError : a name that the labels lack; the message names the file and the first such name
    """
    position = {image: index for index, image in enumerate(ids.tolist())}
    found = np.array([position.get(name, -1) for name in names.tolist()], dtype=np.int64)
    if (found < 0).any():
        absent = names[found < 0]
        raise UserError(
            f"the split file {path} names {len(absent)} image(s) that the labels lack (first: {absent[0]}); "
            "it belongs to another dataset"
        )
    return found


def check_label_dictionary(path: Path, ids: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Check the published labels against the ground truth of all images, ids str [N] and labels int [N].

    Images that only one of the two knows are let pass.

    Raises
    ------
    UserError : a label differs; the message names the file and the first image
    """
    published = {_SUFFIX.sub("", name): label for name, label in read_label_dictionary(path).items()}
    for image, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if published.get(image, label) != label:
            raise UserError(
                f"the label dictionary {path} gives {image} the class id {published[image]}, the ground truth "
                f"{label} ({class_names[label]}); it belongs to another dataset"
            )


def _kinds(name: object, label: object) -> str:
    return f"{type(name).__name__} with a {type(label).__name__}"


class _DType:
    """Stands for numpy.dtype: keeps the type's code and byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order: object = "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands for numpy.ndarray: keeps the list of objects."""

    content: object = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.content = state[4]


def _text(dtype: _DType, raw: bytes) -> str:
    if not isinstance(dtype.code, str) or not re.fullmatch(r"U\d+", dtype.code):
        raise pickle.UnpicklingError("it holds a scalar that is no text")
    return raw.decode("utf-32-be" if dtype.order == ">" else "utf-32-le").rstrip("\0")


class _InertUnpickler(pickle.Unpickler):
    """Knows nothing but stand-ins, made afresh for each use, so that no file can change them for the next."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        internal = ("numpy.core.multiarray", "numpy._core.multiarray")
        if module in internal and name == "_reconstruct":
            return lambda *_: _Array()
        if module in internal and name == "scalar":  # the 14-class dictionary has numpy strings for keys
            return lambda dtype, raw: _text(dtype, raw)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return type(name, (_Array if name == "ndarray" else _DType,), {})
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("it asks for an object from outside")


def _unpickle(data: bytes) -> object:
    """Return the one object of a pickled 0-d object array."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("a memo index beyond its length")  # would make the unpickler take gigabytes
    array = _InertUnpickler(io.BytesIO(data)).load()
    if not isinstance(array, _Array) or type(array.content) is not list or len(array.content) != 1:
        raise ValueError("it is no 0-d object array")
    return array.content[0]


def _spelled(ratio: float | str) -> str:
    if isinstance(ratio, str):
        return ratio
    return str(int(ratio)) if float(ratio).is_integer() else str(ratio)


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
