"""Index streams: their lengths, their class shares, their determinism."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from ltbench.samplers import class_aware_stream, reweighted_stream, shuffled_stream

COUNTS = (40, 3, 0, 17)
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(4), COUNTS))
STREAMS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "shuffled": lambda length, rng: shuffled_stream(len(LABELS), length, rng),
    "reweighted": lambda length, rng: reweighted_stream(LABELS, np.ones(4), length, rng),
    "class aware": lambda length, rng: class_aware_stream(LABELS, 4, length, rng),
}
every_stream = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@every_stream
@pytest.mark.parametrize("length", [1, 11, 12, 60, 61, 500])
def test_length_and_range(stream: Callable, length: int) -> None:
    indices = stream(length, rng())
    assert indices.shape == (length,) and indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < len(LABELS)


@every_stream
def test_depends_on_the_generator_alone(stream: Callable) -> None:
    np.testing.assert_array_equal(stream(100, rng(1)), stream(100, rng(1)))
    assert not np.array_equal(stream(100, rng(1)), stream(100, rng(2)))


@pytest.mark.parametrize("length", [7, 10, 25, 30])
def test_shuffled_passes_hold_every_image_once(length: int) -> None:
    stream = shuffled_stream(10, length, rng())
    assert length < 20 or not np.array_equal(stream[:10], stream[10:20])
    for start in range(0, length, 10):
        part = stream[start : start + 10]
        assert len(set(part.tolist())) == len(part)
        assert len(part) < 10 or sorted(part) == list(range(10))


@pytest.mark.parametrize(
    "probabilities", [(1, 1, 1, 1), (40, 3, 0, 17), (1, 2, 3, 4), (0, 1, 0, 1), (1e-3, 1e-3, 1e-3, 1e-3)]
)
def test_reweighted_class_shares(probabilities: tuple[float, ...]) -> None:
    length = 20_000
    drawn = np.bincount(LABELS[reweighted_stream(LABELS, np.array(probabilities), length, rng())], minlength=4)
    wanted = np.where(np.array(COUNTS) > 0, probabilities, 0.0)
    wanted = wanted / wanted.sum() * length
    assert (drawn[wanted == 0] == 0).all()
    possible = wanted > 0
    statistic = ((drawn - wanted)[possible] ** 2 / wanted[possible]).sum()
    assert statistic < chi2.ppf(0.999, possible.sum() - 1)


def test_reweighted_draws_images_of_a_class_evenly() -> None:
    drawn = np.bincount(reweighted_stream(LABELS, np.ones(4), 30_000, rng()), minlength=len(LABELS))
    for label in (0, 1, 3):
        of_class = drawn[label == LABELS]
        statistic = ((of_class - of_class.mean()) ** 2 / of_class.mean()).sum()
        assert statistic < chi2.ppf(0.999, len(of_class) - 1)


@pytest.mark.parametrize(
    "probabilities",
    [(-1, 1, 0, 1), (0, 0, 1, 0), (0, 0, 0, 0), (math.nan, 1, 1, 1), (1, 1, math.nan, 1), (1, math.inf, 1, 1)],
)
def test_reweighted_refuses_probabilities(probabilities: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        reweighted_stream(LABELS, np.array(probabilities), 10, rng())


@pytest.mark.parametrize("images_per_class", [1, 3, 4, 15])
def test_class_aware_rounds_hold_every_class_equally_often(images_per_class: int) -> None:
    size = 3 * images_per_class
    drawn = LABELS[class_aware_stream(LABELS, images_per_class, 20 * size, rng())]
    for start in range(0, len(drawn), size):
        assert np.bincount(drawn[start : start + size], minlength=4).tolist() == [
            images_per_class,
            images_per_class,
            0,
            images_per_class,
        ]
    turns = drawn.reshape(-1, images_per_class)
    assert (turns == turns[:, :1]).all()


def test_class_aware_rounds_shuffle_classes_and_walk_through_their_images() -> None:
    rounds = LABELS[class_aware_stream(LABELS, 1, 3 * 60, rng())].reshape(60, 3)
    assert len(np.unique(rounds, axis=0)) == 6
    stream = class_aware_stream(LABELS, 4, 12 * 30, rng())
    for label, count in enumerate(COUNTS):
        of_class = stream[LABELS[stream] == label]
        for start in range(0, len(of_class) - count + 1, max(count, 1)):
            assert len(set(of_class[start : start + count].tolist())) == count


@pytest.mark.parametrize("images_per_class", [0, -1])
def test_class_aware_refuses_turns_without_images(images_per_class: int) -> None:
    with pytest.raises(ValueError, match="images_per_class"):
        class_aware_stream(LABELS, images_per_class, 10, rng())


@pytest.mark.parametrize(("labels", "message"), [([0, 4], "got 4"), ([0, -1], "got -1"), ([[0], [1]], "of shape")])
def test_labels_that_are_no_class_are_refused(labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=f"labels must be .*{message}"):
        reweighted_stream(np.array(labels), np.ones(4), 10, rng())


@pytest.mark.parametrize(("count", "length"), [(0, 10), (5, 0), (0, 0)])
def test_a_stream_of_nothing_is_refused(count: int, length: int) -> None:
    labels = np.zeros(count, dtype=np.int64)
    for draw in (
        lambda: shuffled_stream(count, length, rng()),
        lambda: reweighted_stream(labels, np.ones(4), length, rng()),
        lambda: class_aware_stream(labels, 4, length, rng()),
    ):
        with pytest.raises(ValueError, match=f"at least one image and one position, got {count} images"):
            draw()
