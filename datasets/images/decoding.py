"""Files of images, decoded as RGB.

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

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_PNG, _PNG_TEXT = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt")
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
DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow's decoders raise on a file that is damaged or something else altogether."""


def read_image(path: str, size: int) -> np.ndarray:
    """Return the image of a file resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

    Raises
    ------
    OSError, ValueError, ... : the file is missing, corrupt, truncated or too large; Pillow's errors are many
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an image can be read or it cannot; in a progress bar nobody reads warnings
        with loaded(path, (2 * size, 2 * size)) as image:
            return resized(image, size)


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Return a decoded image resized to `size` x `size`: uint8 [3, size, size], RGB, planar.

    Raises
    ------
    ValueError : channels of more than 16 bits
    """
    small = upright(image, to_rgb(image).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0))
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def damage_line(error: BaseException) -> str:
    """Return why an image cannot be read, in one short line."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())[:200]


def loaded(path: str, least: tuple[int, int] | None = None) -> Image.Image:
    """Return the image of a file, decoded.

    Parameters
    ----------
    least : width and height that do; a JPEG is then decoded at a fraction of its size, if it has more than that

    Raises
    ------
    OSError, ValueError, ... : as `read_image`
    """
    if not os.path.isfile(path) and os.path.exists(path):  # noqa: PTH110, PTH113  opening a pipe would wait for ever
        raise OSError("it is not a file")
    try:
        return _loaded(path, least)
    except ValueError:  # of a PNG with more text than Pillow takes, among others
        pixels_alone = _png_without_text(Path(path).read_bytes())
        if pixels_alone is None:
            raise
        return _loaded(io.BytesIO(pixels_alone), least)


def _loaded(file: str | io.BytesIO, least: tuple[int, int] | None) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    try:
        if least is not None:
            image.draft("RGB", least)
        image.load()
    except BaseException:
        image.close()
        raise
    return image


def _png_without_text(data: bytes) -> bytes | None:
    """Return a PNG without its chunks of text; None where there are none, or it is no PNG."""
    if not data.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")  # length, type, content, check sum
        if data[place + 4 : place + 8] not in _PNG_TEXT:
            kept.append(data[place:end])
        place = end
    without = b"".join(kept)
    return without if len(without) < len(data) else None


def upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """Return the pixels of an image turned as its EXIF orientation says; the image is loaded, else a TIFF turns twice.

    Parameters
    ----------
    image : as it was opened
    pixels : made from it, without EXIF data of their own
    """
    orientation = _orientation(image)
    return pixels.transpose(_TURNS[orientation]) if orientation in _TURNS else pixels


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 0)
    except DAMAGE:  # broken EXIF data do not spoil the pixels
        return 0


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has channels of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB, on white where it is transparent; ValueError for channels of 32 bits.

    Mode I is of 32 bits in all formats but PNG, which has 16 at most.
    """
    if is_deep(image):
        values = np.asarray(image)
        wide = image.mode == "I" and image.format not in ("PNG", None)
        if wide or values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its channels have 32 bits; save it with 8 or 16")
        kept = (values >> 8).astype(np.uint8)
        if "transparency" in image.info:  # one value of grey
            kept[values == image.info["transparency"]] = 255
        return Image.fromarray(kept).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
