"""What training images go through, as plain numbers: part of the protocol and of its digest."""

from __future__ import annotations

from dataclasses import dataclass, replace

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, drawn anew for every sample.

    Attributes
    ----------
    crop_scale : smallest and largest area of the random crop, as a share of the image, in (0, 1]
    crop_ratio : smallest and largest width / height of the crop
    horizontal_flip, vertical_flip : probabilities
    brightness, contrast, saturation : half-widths d of the factor's range [1 - d, 1 + d], in [0, 1]
    hue : half-width of the hue rotation, as a share of the full circle, in [0, 0.5]
    grayscale : probability of losing all colour
    mean, std : of the three channels, in [0, 1]; also applied to validation and test images
    interpolation : of `INTERPOLATIONS`, how stored images are resized, those of validation and test too
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    grayscale: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def without_changes(self) -> Augmentation:
        """Return the one that leaves images whole and as they are, with the same normalisation and interpolation."""
        whole = replace(self, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0, vertical_flip=0.0)
        return replace(whole, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0)


def stored_size(image_size: int) -> int:
    """Return the side at which images are stored for training at `image_size`: one seventh larger.

    A random crop of half the area is then enlarged by a quarter, not by two fifths; at 224 it is the usual 256.
    """
    return -(-image_size * 8 // 7)
