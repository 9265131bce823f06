"""Augmentation of a whole batch, with draws of its own for every sample, as a few matrix products.

Cropping, resizing and flipping are linear and separable: one matrix per sample for the rows and one for the
columns do all three at once, with an antialiasing filter, on any device. Brightness, contrast, saturation, hue
and normalisation are affine in colour: one 3 x 3 matrix and one offset per sample do all five. Unlike
torchvision's `ColorJitter`, the four jitters have a fixed order and nothing is clamped between them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ltbench.datasets.augmentation import Augmentation

_LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
_CENTRE = 128.0  # bytes are centred before products: bfloat16 then loses at most a quarter of a grey level
_DRAWS = 11
_CHUNK = 32  # images a product: its temporaries stay in cache, and the batch needs no second copy in memory


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

    def train(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented images: uint8 [B, 3, S, S] to `dtype` [B, 3, image_size, image_size], channels-last.

        `generator` lives on the CPU whatever the device of `pixels`, so that draws do not depend on the device.
        """
        draws = torch.rand(len(pixels), _DRAWS, generator=generator)
        rows, columns = self._resampling(draws, pixels.shape[-1], pixels.device)
        colour, contrast = (part.to(pixels.device) for part in self._jitter(draws))
        return self._apply(pixels, rows, columns, colour, contrast)

    def evaluate(self, pixels: Tensor) -> Tensor:
        """Return the whole images, resized and normalised: shapes as `train`, nothing random."""
        batch, side = len(pixels), pixels.shape[-1]
        whole = resampling_matrix(torch.zeros(1), torch.full((1,), float(side)), side, self.image_size)
        whole = whole.to(pixels.device).expand(batch, -1, -1)
        identity = torch.eye(3, device=pixels.device).expand(batch, 3, 3)
        return self._apply(pixels, whole, whole, identity, torch.ones(batch, 2, device=pixels.device))

    def _resampling(self, draws: Tensor, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
        chosen = self.augmentation
        area = chosen.crop_scale[0] + draws[:, 0] * (chosen.crop_scale[1] - chosen.crop_scale[0])
        low, high = (math.log(bound) for bound in chosen.crop_ratio)
        ratio = torch.exp(low + draws[:, 1] * (high - low))
        width = (side * torch.sqrt(area * ratio)).clamp(max=side)
        height = (side * torch.sqrt(area / ratio)).clamp(max=side)
        left, top = draws[:, 2] * (side - width), draws[:, 3] * (side - height)
        mirrored, inverted = draws[:, 4] < chosen.horizontal_flip, draws[:, 5] < chosen.vertical_flip
        rows = resampling_matrix(top.to(device), height.to(device), side, self.image_size, inverted.to(device))
        columns = resampling_matrix(left.to(device), width.to(device), side, self.image_size, mirrored.to(device))
        return rows, columns

    def _jitter(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return colour matrices [B, 3, 3] and [B, 2]: brightness, contrast factors."""
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
        return hue @ saturate, torch.stack([brightness, contrast], 1)

    def _apply(self, pixels: Tensor, rows: Tensor, columns: Tensor, colour: Tensor, factors: Tensor) -> Tensor:
        size = self.image_size
        shape = (len(pixels), 3, size, size)
        images = torch.empty(shape, dtype=self.dtype, device=pixels.device, memory_format=torch.channels_last)
        step = _CHUNK if pixels.device.type == "cpu" else max(len(pixels), 1)
        for start in range(0, len(pixels), step):
            part = slice(start, start + step)
            resized = _resample(pixels[part], rows[part], columns[part], self.dtype)
            images[part] = self._colour(resized, colour[part], factors[part])
        return images

    def _colour(self, images: Tensor, colour: Tensor, factors: Tensor) -> Tensor:
        """Apply jitter and normalisation to centred bytes [b, 3, h, w].

        With brightness a and contrast c, an image x in [0, 1] of mean grey g becomes a c x + (1 - c) a g; saturation
        and hue leave grey alone, so the offset passes through their matrix unchanged.
        """
        flat = images.flatten(2)
        brightness, contrast = factors.to(torch.float32).unbind(1)
        luma = torch.tensor(_LUMA, device=images.device)
        grey = (flat.mean(2, dtype=torch.float32) + _CENTRE) @ luma / 255
        mean = torch.tensor(self.augmentation.mean, device=images.device)
        std = torch.tensor(self.augmentation.std, device=images.device)
        matrix = colour * (brightness * contrast).view(-1, 1, 1)
        offset = ((1 - contrast) * brightness * grey).view(-1, 1) + matrix.sum(2) * (_CENTRE / 255)
        matrix = matrix / (255 * std.view(1, 3, 1))
        offset = (offset - mean) / std
        return torch.baddbmm(offset.unsqueeze(2).to(self.dtype), matrix.to(self.dtype), flat).view_as(images)


def resampling_matrix(start: Tensor, length: Tensor, source: int, target: int, flip: Tensor | None = None) -> Tensor:
    """Return matrices that cut an interval out of `source` pixels and resize it to `target` pixels.

    Triangle filter, widened when it shrinks (antialiasing), rows that sum to 1.

    Parameters
    ----------
    start, length : float [B], of the interval, in source pixels
    flip : bool [B], whether the interval is read backwards; None: never

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
    weight = position.sub(centre).abs_().div_(-step.clamp(min=1.0)).add_(1.0).clamp_(min=0.0)
    return weight.div_(weight.sum(2, keepdim=True))


def _resample(pixels: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    batch, channels, side, _ = pixels.shape
    centred = pixels.to(dtype).sub_(_CENTRE).reshape(batch, channels * side, side)
    narrowed = torch.bmm(centred, columns.to(dtype).transpose(1, 2)).view(batch, channels, side, -1)
    return torch.matmul(rows.to(dtype).unsqueeze(1), narrowed)
