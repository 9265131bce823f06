"""Augmentation of a whole batch, with draws of its own for every sample, as a few matrix products.

Cropping, resizing and flipping are linear and separable: one matrix per sample for the rows and one for the
columns do all three at once, with an antialiasing filter, on any device. Brightness, contrast, saturation, hue
and normalisation are affine in colour: one 3 x 3 matrix and one offset per sample do all five. Unlike
torchvision's `ColorJitter`, the four jitters have a fixed order and nothing is clamped between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ltbench.datasets.images.augmentation import Augmentation
from ltbench.uploads import upload

_LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_CENTRE = 128.0  # bytes are centred before products: bfloat16 then loses at most a quarter of a grey level
_DRAWS = 11
_MARGIN = 24 / 224  # of the crops of an ensemble at test time
_CHUNK = 32  # images a product: its temporaries stay in cache, and the batch needs no second copy in memory


@dataclass(frozen=True)
class Changes:
    """What is done to each of some images.

    Attributes
    ----------
    windows : crops, float [n, 6]: top, height, upside down or not; left, width, mirrored or not
    colours : jitter and normalisation, float [n, 3, 7]: columns 0 to 2 for the centred bytes, 3 to 5 for their mean
        over the image, 6 constant
    """

    windows: Tensor
    colours: Tensor

    def __getitem__(self, rows: slice) -> Changes:
        """Return those of some of the images."""
        return Changes(self.windows[rows], self.colours[rows])

    def on(self, device: torch.device) -> Changes:
        """Return them on a device."""
        return Changes(upload(self.windows, device), upload(self.colours, device))


class BatchTransform:
    """Turns uint8 batches into network input.

    Parameters
    ----------
    image_size : side of the output, pixels
    augmentation : ranges of the random changes, and the normalisation
    dtype : of the output; the products run in it too
    """

    def __init__(self, image_size: int, augmentation: Augmentation, dtype: torch.dtype = torch.float32) -> None:
        self.image_size = image_size
        self.augmentation = augmentation
        self.dtype = dtype
        self._fixed: dict[tuple[Any, ...], Changes] = {}

    def train(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented images: uint8 [B, 3, S, S] to `dtype` [B, 3, image_size, image_size], channels-last.

        `generator` lives on the CPU whatever the device of `pixels`, so that draws do not depend on the device.
        """
        return self.apply(pixels, self.draw(len(pixels), pixels.shape[-1], generator).on(pixels.device))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Changes:
        """Return random changes of so many images of a side, on the CPU.

        Those of many images are the same, to the bit, drawn at once or one batch after the other.
        """
        draws = torch.rand(count, _DRAWS, generator=generator)
        return Changes(self._windows(draws, side), self._colours(draws))

    def evaluate(self, pixels: Tensor) -> Tensor:
        """Return the whole images, resized and normalised: shapes as `train`, nothing random."""
        return self._cut(pixels, 0.0, 0.0, float(pixels.shape[-1]))

    def five_crops(self, pixels: Tensor) -> Iterator[Tensor]:
        """Yield the centre and the corners of images that are resized to 24 / 224 more than `image_size`, normalised.

        Shapes as `train`, nothing random; the centre is the first.
        """
        for window in crop_windows(pixels.shape[-1], self.image_size):
            yield self._cut(pixels, *window)

    def _cut(self, pixels: Tensor, top: float, left: float, length: float) -> Tensor:
        """Return squares of images, resized and normalised."""
        kind = (top, left, length, pixels.device)
        if kind not in self._fixed:
            window = torch.tensor([[top, length, 0.0, left, length, 0.0]])
            colour = self._normalised(torch.eye(3).unsqueeze(0), torch.zeros(1))
            self._fixed[kind] = Changes(window, colour).on(pixels.device)
        one, count = self._fixed[kind], len(pixels)
        return self.apply(pixels, Changes(one.windows.expand(count, -1), one.colours.expand(count, -1, -1)))

    def _windows(self, draws: Tensor, side: int) -> Tensor:
        """Return crops, float [B, 6]; see `Changes`."""
        chosen = self.augmentation
        area = chosen.crop_scale[0] + draws[:, 0] * (chosen.crop_scale[1] - chosen.crop_scale[0])
        low, high = (math.log(bound) for bound in chosen.crop_ratio)
        ratio = torch.exp(low + draws[:, 1] * (high - low))
        width = (side * torch.sqrt(area * ratio)).clamp(max=side)
        height = (side * torch.sqrt(area / ratio)).clamp(max=side)
        left, top = draws[:, 2] * (side - width), draws[:, 3] * (side - height)
        mirrored, inverted = draws[:, 4] < chosen.horizontal_flip, draws[:, 5] < chosen.vertical_flip
        return torch.stack([top, height, inverted.float(), left, width, mirrored.float()], dim=1)

    def _colours(self, draws: Tensor) -> Tensor:
        """Return jitter and normalisation, float [B, 3, 7]; see `_normalised`."""
        chosen = self.augmentation
        ranges = torch.tensor([chosen.brightness, chosen.contrast, chosen.saturation])
        brightness, contrast, saturation = (1 + (2 * draws[:, 6:9] - 1) * ranges).unbind(1)
        saturation = torch.where(draws[:, 10] < chosen.grayscale, torch.zeros_like(saturation), saturation)
        luma = torch.tensor(_LUMA).expand(3, 3)
        saturate = saturation.view(-1, 1, 1) * torch.eye(3) + (1 - saturation).view(-1, 1, 1) * luma
        turn = (2 * draws[:, 9] - 1) * chosen.hue * 2 * math.pi
        rotate = torch.zeros(len(draws), 3, 3)
        rotate[:, 0, 0] = 1
        rotate[:, 1, 1] = rotate[:, 2, 2] = torch.cos(turn)
        rotate[:, 1, 2], rotate[:, 2, 1] = -torch.sin(turn), torch.sin(turn)
        to_yiq = torch.tensor(_RGB_TO_YIQ)
        hue = torch.linalg.inv(to_yiq) @ rotate @ to_yiq
        return self._normalised(hue @ saturate * (brightness * contrast).view(-1, 1, 1), (1 - contrast) * brightness)

    def _normalised(self, matrix: Tensor, grey: Tensor) -> Tensor:
        """Return x -> (matrix x + grey * mean grey of the image - mean) / std for bytes v = 255 x - 128.

        With brightness a and contrast c an image x in [0, 1] becomes a c x + (1 - c) a g, g its mean grey; saturation
        and hue leave grey alone, so that this offset passes through their matrix unchanged.

        Parameters
        ----------
        matrix : float [B, 3, 3]
        grey : float [B]

        Returns
        -------
        float [B, 3, 7]: columns 0 to 2 for v, 3 to 5 for the mean of v over the image, 6 constant
        """
        mean, std = (torch.tensor(values).view(1, 3, 1) for values in (self.augmentation.mean, self.augmentation.std))
        grey = grey.view(-1, 1, 1)
        of_mean = (grey * torch.tensor(_LUMA)).expand(-1, 3, 3)
        constant = (matrix.sum(2, keepdim=True) + grey) * (_CENTRE / 255) - mean
        return torch.cat([matrix / 255, of_mean / 255, constant], dim=2) / std

    def apply(self, pixels: Tensor, changes: Changes) -> Tensor:
        """Return changed images; shapes as `train`, the changes on the device of the pixels."""
        size, side = self.image_size, pixels.shape[-1]
        shape = (len(pixels), 3, size, size)
        images = torch.empty(shape, dtype=self.dtype, device=pixels.device, memory_format=torch.channels_last)
        step = _CHUNK if pixels.device.type == "cpu" else max(len(pixels), 1)
        for start in range(0, len(pixels), step):
            part = slice(start, start + step)
            top, height, inverted, left, width, mirrored = changes.windows[part].unbind(1)
            kernel = KERNELS[self.augmentation.interpolation]
            rows = resampling_matrix(top, height, side, size, inverted > 0, kernel).to(self.dtype)
            columns = resampling_matrix(left, width, side, size, mirrored > 0, kernel).to(self.dtype)
            flat = _resample(pixels[part], rows, columns).flatten(2)
            matrix, of_mean, constant = changes.colours[part].split((3, 3, 1), dim=2)
            offset = torch.baddbmm(constant, of_mean, flat.mean(2, keepdim=True, dtype=torch.float32))
            images[part] = torch.baddbmm(offset.to(self.dtype), matrix.to(self.dtype), flat).unflatten(2, (size, size))
        return images


def _triangle(distance: Tensor) -> Tensor:
    """Return the weights of linear interpolation at distances, at least 0; they may be changed in place."""
    return distance.neg_().add_(1.0).clamp_(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Return the weights of cubic convolution with a = -0.5, as Pillow has it, at distances of at least 0."""
    near = (1.5 * distance - 2.5) * distance.square() + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _triangle, "bicubic": _cubic}
"""Weights of pixels by their distances from a centre, by the name of the interpolation."""


def margin_of(image_size: int) -> int:
    """Return by how many pixels images are larger that five crops are cut out of."""
    return round(_MARGIN * image_size)


def crop_windows(side: int, image_size: int) -> list[tuple[float, float, float]]:
    """Return top, left and length, in pixels of images of a side, of five crops: the centre, then the corners."""
    margin = margin_of(image_size)
    step = side / (image_size + margin)
    far, middle, length = margin * step, margin // 2 * step, image_size * step
    corners = ((middle, middle), (0.0, 0.0), (0.0, far), (far, 0.0), (far, far))
    return [(top, left, length) for top, left in corners]


def resampling_matrix(
    start: Tensor,
    length: Tensor,
    source: int,
    target: int,
    flip: Tensor | None = None,
    kernel: Callable[[Tensor], Tensor] = _triangle,
) -> Tensor:
    """Return matrices that cut an interval out of `source` pixels and resize it to `target` pixels.

    The kernel is widened when it shrinks (antialiasing); rows sum to 1.

    Parameters
    ----------
    start, length : float [B], of the interval, in source pixels
    flip : bool [B], whether the interval is read backwards; None: never
    kernel : distances from a pixel's centre to weights

    Returns
    -------
    float32 [B, target, source]
    """
    device = start.device
    step = (length / target).view(-1, 1, 1)
    order = torch.arange(target, device=device, dtype=torch.float32).view(1, -1, 1)
    if flip is not None:
        order = torch.where(flip.view(-1, 1, 1), target - 1 - order, order)
    centre = start.view(-1, 1, 1) + (order + 0.5) * step - 0.5
    position = torch.arange(source, device=device, dtype=torch.float32).view(1, 1, -1)
    weight = kernel(position.sub(centre).abs_().div_(step.clamp(min=1.0)))
    return weight.div_(weight.sum(2, keepdim=True))


def _resample(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    batch, channels, side, _ = pixels.shape
    centred = pixels.to(rows.dtype).sub_(_CENTRE).reshape(batch, channels * side, side)
    narrowed = torch.bmm(centred, columns.transpose(1, 2)).view(batch, channels, side, -1)
    return torch.matmul(rows.unsqueeze(1), narrowed)
