"""Near-duplicates are found after harmless changes, and nothing else is."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ltbench.datasets.checks.hash_search import candidate_pairs
from ltbench.datasets.checks.near_duplicates import near_pairs, sketch


def _saved_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": _saved_again,
    "smaller": lambda image: image.resize((70, 50)),
    "larger": lambda image: image.resize((450, 300)),
    "grey": lambda image: image.convert("L"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    coarse = rng.integers(40, 200, (30, 5, 7, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((150, 100), Image.Resampling.BICUBIC) for pixels in coarse]


def _pairs(images: list[Image.Image], distance: int = 8) -> list[list[int]]:
    hashes, thumbs = (np.array(parts) for parts in zip(*map(sketch, images), strict=True))
    return near_pairs(hashes, thumbs, distance).tolist()


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change: str, pictures: list[Image.Image]) -> None:
    assert _pairs(pictures) == []
    assert _pairs([*pictures, CHANGES[change](pictures[4])]) == [[4, 30]]


@pytest.mark.parametrize("distance", [0, 1, 7, 8, 20, 33, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_candidates_are_those_of_a_plain_search(count: int, distance: int) -> None:
    rng = np.random.default_rng(count)
    hashes = rng.random((count, 64)) < rng.random(64)
    hashes[count // 2 :] = hashes[: count - count // 2] ^ (rng.random((count - count // 2, 64)) < distance / 64)
    first, second = np.nonzero(np.triu((hashes[:, None] ^ hashes[None]).sum(axis=2) <= distance, k=1))
    found = [tuple(pair) for pairs in candidate_pairs(hashes, distance) for pair in pairs.tolist()]
    assert sorted(found) == list(zip(first.tolist(), second.tolist(), strict=True))


def test_hash_and_contrast_decide_together() -> None:
    thumbs = np.random.default_rng(4).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    assert near_pairs(np.zeros((2, 64), dtype=bool), thumbs).tolist() == []
    assert _pairs([Image.new("RGB", (20, 20), colour) for colour in ("black", "white", "red")]) == []
