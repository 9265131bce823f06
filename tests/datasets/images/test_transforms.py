"""Batch transforms against torchvision, and against the four colour operations written one by one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from ltbench.datasets.images.augmentation import INTERPOLATIONS, Augmentation, stored_size
from ltbench.datasets.images.transforms import BatchTransform, resampling_matrix

OFF = dict.fromkeys(("horizontal_flip", "vertical_flip", "brightness", "contrast", "saturation", "hue"), 0.0)
PLAIN = Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), **OFF)
RAW = replace(PLAIN, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
STRONG = replace(Augmentation(), crop_scale=(0.3, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int, side: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator(seed))


def augmented(augmentation: Augmentation, pixels: Tensor, seed: int = 0) -> Tensor:
    return BatchTransform(pixels.shape[-1], augmentation).train(pixels, generator(seed))


@pytest.mark.parametrize(("image_size", "stored"), [(224, 256), (48, 55), (7, 8), (16, 19)])
def test_images_are_stored_one_seventh_larger(image_size: int, stored: int) -> None:
    assert stored_size(image_size) == stored


@pytest.mark.parametrize(("source", "target"), [(8, 8), (9, 4), (5, 16), (55, 48)])
def test_resampling_rows_sum_to_one(source: int, target: int) -> None:
    draws = torch.rand(50, 2, generator=generator())
    length = source * (0.1 + 0.9 * draws[:, 0])
    matrices = resampling_matrix((source - length) * draws[:, 1], length, source, target)
    assert matrices.shape == (50, target, source) and matrices.dtype == torch.float32 and (matrices >= 0).all()
    torch.testing.assert_close(matrices.sum(2), torch.ones(50, target))


@pytest.mark.parametrize(("source", "target"), [(55, 48), (32, 32), (19, 16), (64, 20), (12, 30)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_evaluation_is_an_antialiased_resize_and_a_normalisation(source: int, target: int, interpolation: str) -> None:
    pixels, chosen = images(4, source), Augmentation(interpolation=interpolation)
    resized = reference.resize_image(pixels.float(), [target, target], InterpolationMode(interpolation), antialias=True)
    expected = reference.normalize_image(resized / 255, list(chosen.mean), list(chosen.std))
    torch.testing.assert_close(BatchTransform(target, chosen).evaluate(pixels), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_output_is_channels_last(mode: str, dtype: torch.dtype) -> None:
    transform, pixels = BatchTransform(16, Augmentation(), dtype), images(5, 19)
    result = transform.evaluate(pixels) if mode == "evaluate" else transform.train(pixels, generator())
    assert result.shape == (5, 3, 16, 16) and result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [16, 224])
def test_five_crops_are_those_of_the_resized_image(size: int) -> None:
    pixels, chosen = images(3, 40, seed=2), Augmentation()
    margin = round(24 * size / 224)
    whole = BatchTransform(size + margin, chosen).evaluate(pixels)
    expected = reference.five_crop(whole, [size, size])  # the corners, then the centre
    first, *corners = BatchTransform(size, chosen).five_crops(pixels)
    for found, wanted in zip(corners, expected, strict=False):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    middle = slice(margin // 2, margin // 2 + size)
    torch.testing.assert_close(first, whole[:, :, middle, middle], rtol=0, atol=1e-4)


def test_evaluation_draws_nothing_and_keeps_the_pixels() -> None:
    transform, pixels = BatchTransform(16, PLAIN), images(40, 19)
    torch.testing.assert_close(transform.train(pixels, generator()), transform.evaluate(pixels), rtol=1e-5, atol=1e-5)
    pixels, state = images(3, 19), torch.get_rng_state()
    before = pixels.clone()
    transform = BatchTransform(16, STRONG)
    assert torch.equal(transform.evaluate(pixels), transform.evaluate(pixels))
    transform.train(pixels, generator())
    assert torch.equal(pixels, before) and torch.equal(torch.get_rng_state(), state)
    transform, pixels = BatchTransform(16, Augmentation()), images(70, 19)
    single = torch.cat([transform.evaluate(pixels[row : row + 1]) for row in range(70)])
    torch.testing.assert_close(transform.evaluate(pixels), single, rtol=0, atol=1e-5)


def test_every_sample_has_draws_of_the_generator_alone() -> None:
    same = images(1, 19).expand(40, -1, -1, -1).contiguous()
    result = BatchTransform(16, STRONG).train(same, generator()).flatten(1)
    assert len(torch.unique(result, dim=0)) == 40
    transform, pixels = BatchTransform(16, STRONG), images(8, 19)
    assert torch.equal(transform.train(pixels, generator(1)), transform.train(pixels, generator(1)))
    assert not torch.equal(transform.train(pixels, generator(1)), transform.train(pixels, generator(2)))
    moving = generator(1)
    assert not torch.equal(transform.train(pixels, moving), transform.train(pixels, moving))
    at_once, moving = transform.draw(11, 19, generator(1)), generator(1)
    for rows in (slice(0, 8), slice(8, 11)):
        part = transform.draw(rows.stop - rows.start, 19, moving)
        assert torch.equal(part.windows, at_once[rows].windows) and torch.equal(part.colours, at_once[rows].colours)


def test_augmentation_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    transform, pixels = BatchTransform(16, STRONG), images(40, 19)
    whole = transform.train(pixels, generator())
    monkeypatch.setattr("ltbench.datasets.images.transforms._CHUNK", 7)
    torch.testing.assert_close(transform.train(pixels, generator()), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("field", "axis"), [("horizontal_flip", 3), ("vertical_flip", 2)])
def test_flips(field: str, axis: int) -> None:
    pixels = images(64, 12)
    plain = augmented(RAW, pixels)
    torch.testing.assert_close(augmented(replace(RAW, **{field: 1.0}), pixels), plain.flip(axis), rtol=0, atol=1e-5)
    half = augmented(replace(RAW, **{field: 0.5}), pixels)
    gap = torch.stack([(half - plain).abs().amax((1, 2, 3)), (half - plain.flip(axis)).abs().amax((1, 2, 3))])
    assert (gap.amin(0) < 1e-5).all() and 16 < (gap[0] < 1e-5).sum() < 48


@pytest.mark.parametrize("ratio", [(1.0, 1.0), (0.75, 4 / 3)])
def test_crops_lie_inside_and_have_the_area_asked_for(ratio: tuple[float, float]) -> None:
    """On two ramps a crop shows its own edges: the outermost values are linear in them."""
    side = 64
    ramp = torch.arange(side, dtype=torch.uint8).repeat(side, 1)
    pixels = torch.stack([ramp, ramp.T, ramp]).repeat(200, 1, 1, 1)
    result = augmented(replace(RAW, crop_scale=(0.25, 0.5), crop_ratio=ratio), pixels) * 255
    first, last = result[:, 0, 32, 8], result[:, 0, 32, 56]
    width = (last - first) / 48 * side
    height = (result[:, 1, 56, 32] - result[:, 1, 8, 32]) / 48 * side
    assert result.min() >= -1e-3 and result.max() <= side - 1 + 1e-3
    area, shape = width * height / side**2, width / height
    assert area.min() > 0.249 and area.max() < 0.501 and area.max() - area.min() > 0.2
    assert shape.min() > ratio[0] - 2e-3 and shape.max() < ratio[1] + 2e-3


def brightness(image: Tensor, factor: float) -> Tensor:
    return image * factor


def contrast(image: Tensor, factor: float) -> Tensor:
    return factor * image + (1 - factor) * (image * LUMA).sum(0).mean()


def saturation(image: Tensor, factor: float) -> Tensor:
    return factor * image + (1 - factor) * (image * LUMA).sum(0)


def hue(image: Tensor, turn: float) -> Tensor:
    """Rotate the chroma plane of YIQ by `turn` of the full circle."""
    luma, first, second = torch.einsum("ij,jhw->ihw", YIQ, image)
    cosine, sine = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    turned = torch.stack([luma, cosine * first - sine * second, sine * first + cosine * second])
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(YIQ), turned)


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    operation.__name__: operation for operation in (brightness, contrast, saturation, hue)
}


def recovered(name: str, image: Tensor, result: Tensor) -> float:
    """Return the factor that one operation alone was applied with."""
    if name == "hue":
        before, after = (torch.einsum("ij,jhw->ihw", YIQ, values) for values in (image, result))
        turned = torch.complex(after[1], after[2]) * torch.complex(before[1], -before[2])
        return float(turned.sum().angle()) / (2 * np.pi)
    fixed = OPERATIONS[name](image, 0.0)
    slope, gap = OPERATIONS[name](image, 1.0) - fixed, result - fixed
    return float((slope * gap).sum() / (slope * slope).sum())


def test_jitter_is_the_four_operations_in_their_order_then_normalised() -> None:
    pixels = images(24, 12)
    plain, widths = pixels.double() / 255, {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.1}
    factors: dict[str, list[float]] = {}
    for name, width in widths.items():
        alone = augmented(replace(RAW, **{name: width}), pixels, seed=3).double()
        factors[name] = [recovered(name, *pair) for pair in zip(plain, alone, strict=True)]
        centre = 0.0 if name == "hue" else 1.0
        assert all(abs(factor - centre) <= width + 1e-5 for factor in factors[name])
        assert np.ptp(factors[name]) > width
        expected = [OPERATIONS[name](*pair) for pair in zip(plain, factors[name], strict=True)]
        torch.testing.assert_close(alone, torch.stack(expected), rtol=0, atol=1e-4)
    together = augmented(replace(RAW, **widths), pixels, seed=3).double()
    for row, image in enumerate(plain):
        for name, operation in OPERATIONS.items():
            image = operation(image, factors[name][row])
        torch.testing.assert_close(together[row], image, rtol=0, atol=1e-4)
    pixels, jitter = images(6, 12), {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.1}
    raw = augmented(replace(RAW, **jitter), pixels)
    expected = reference.normalize_image(raw, list(PLAIN.mean), list(PLAIN.std))
    torch.testing.assert_close(augmented(replace(PLAIN, **jitter), pixels), expected, rtol=0, atol=1e-4)


def test_grayscale_leaves_no_colour_with_its_probability() -> None:
    pixels = images(10, 12)
    grey = augmented(replace(RAW, grayscale=1.0, saturation=0.5, hue=0.1), pixels).double()
    luma = (pixels.double() / 255 * LUMA).sum(1, keepdim=True)
    torch.testing.assert_close(grey, luma.expand(-1, 3, -1, -1), rtol=0, atol=1e-4)
    result = augmented(replace(RAW, grayscale=0.5), images(200, 6))
    colourless = ((result[:, 0] - result[:, 1]).abs().amax((1, 2)) < 1e-5).sum()
    assert 65 < colourless < 135


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_bfloat16_is_close(mode: str) -> None:
    pixels = images(40, 55)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        transform = BatchTransform(48, Augmentation(), dtype)
        results.append(transform.evaluate(pixels) if mode == "evaluate" else transform.train(pixels, generator()))
    exact, rough = results
    assert (exact - rough.float()).abs().max() < 0.05
