"""What the image files of a dataset are: readable or not, size, mode, pixels and a sketch of them to compare."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ltbench.datasets.base import Source
from ltbench.datasets.checks.near_duplicates import THUMB, sketch
from ltbench.datasets.images.decoding import DAMAGE, is_deep, loaded, to_rgb, upright
from ltbench.datasets.sources._image_files import FileSource
from ltbench.errors import UserError
from ltbench.processes import in_threads

_PACKED_SIZE = 64  # at which images without a file of their own are compared


@dataclass(frozen=True)
class ImageFacts:
    """Facts about n images, in the order of `positions`.

    Attributes
    ----------
    positions : int64 [n], into the arrays of the source
    files : str [n], "" where an image has no file of its own
    errors : str [n], why an image cannot be read, "" where it can
    sizes : int64 [n, 2], width and height, 0 where unknown
    peaks : int64 [n], the highest value of an image of 16 bits a channel, 0 of others
    modes : str [n], of Pillow (RGB, L, CMYK, ...), "" where unknown
    contents : str [n], SHA-256 of size and decoded pixels, "" where unreadable
    hashes : bool [n, 64], perceptual
    thumbs : uint8 [n, THUMB, THUMB], grey
    """

    positions: np.ndarray
    files: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    modes: np.ndarray
    peaks: np.ndarray
    contents: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray


@dataclass(frozen=True)
class _Fact:
    file: str = ""
    error: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    peak: int = 0
    content: str = ""
    bits: np.ndarray | None = None
    thumb: np.ndarray | None = None


def examine(source: Source, positions: np.ndarray, *, workers: int = 1, quiet: bool = True) -> ImageFacts:
    """Decode images at full size and return their facts.

    Images that lie in files of their own are decoded in threads; others are read through the source, one by one.

    Parameters
    ----------
    positions : int64 [n] of present images, ascending
    workers : threads
    """
    filed = isinstance(source, FileSource)

    def look(position: int) -> _Fact:
        if not isinstance(source, FileSource):
            return _packed(source, position)
        try:
            source.require_as_listed(position)
        except UserError as error:
            return _Fact(file=str(source.path(position)), error=str(error))
        return _filed(source.path(position))

    threads, label = workers if filed else 1, f"examining {source.name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image can be read or it cannot
        facts = list(in_threads(look, positions.tolist(), workers=threads, label=label, unit="images", quiet=quiet))
    blank, dark = np.zeros(64, dtype=bool), np.zeros((THUMB, THUMB), dtype=np.uint8)
    return ImageFacts(
        positions=positions,
        files=np.array([fact.file for fact in facts], dtype=str),
        errors=np.array([fact.error for fact in facts], dtype=str),
        sizes=np.array([fact.size for fact in facts], dtype=np.int64).reshape(-1, 2),
        modes=np.array([fact.mode for fact in facts], dtype=str),
        peaks=np.array([fact.peak for fact in facts], dtype=np.int64),
        contents=np.array([fact.content for fact in facts], dtype=str),
        hashes=np.array([blank if fact.bits is None else fact.bits for fact in facts]).reshape(-1, 64),
        thumbs=np.array([dark if fact.thumb is None else fact.thumb for fact in facts]).reshape(-1, THUMB, THUMB),
    )


def _filed(path: Path) -> _Fact:
    try:
        with loaded(str(path)) as image:
            peak = int(np.asarray(image).max()) if is_deep(image) else 0
            pixels = upright(image, to_rgb(image))
            return _described(pixels, file=str(path), size=pixels.size, mode=image.mode, peak=peak)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return _Fact(file=str(path), error=reason)


def _packed(source: Source, position: int) -> _Fact:
    try:
        return _described(Image.fromarray(source.read(position, _PACKED_SIZE).transpose(1, 2, 0)))
    except UserError as error:
        return _Fact(error=str(error))


def _described(
    image: Image.Image, file: str = "", size: tuple[int, int] = (0, 0), mode: str = "", peak: int = 0
) -> _Fact:
    content = hashlib.sha256(f"{image.width} {image.height} ".encode())
    content.update(image.tobytes())
    bits, thumb = sketch(image)
    return _Fact(file, "", size, mode, peak, content.hexdigest(), bits, thumb)
