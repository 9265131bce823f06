"""RS: how often each scheme shows each class, by class id, whatever the order of the counts."""

from typing import Any

import numpy as np
import pytest
from mean_colour import MeanColour

from ltbench.methods import Method, Progress, Task, create
from ltbench.methods.stages import Pool

COUNTS = np.array([30, 400, 6, 100], dtype=np.int64)
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), COUNTS))
DRAWS = 40_000
START = Progress(0, 1)
EVEN = np.full(4, 0.25)
EFFECTIVE = COUNTS / (1 - 0.99**COUNTS)


def method_of(**options: Any) -> Method:
    return create("rs", Task(4, COUNTS, 8), MeanColour(), **options)


def stream_of(
    method: Method, progress: Progress = START, labels: np.ndarray = LABELS, length: int = DRAWS
) -> np.ndarray:
    pool = Pool(labels, np.bincount(labels, minlength=4), length)
    return method.sampler(pool, progress, np.random.default_rng(0))


def assert_shares(stream: np.ndarray, expected: np.ndarray, labels: np.ndarray = LABELS) -> None:
    expected = expected / expected.sum()
    spread = np.sqrt(expected * (1 - expected) / len(stream))
    shares = np.bincount(labels[stream], minlength=4) / len(stream)
    assert (np.abs(shares - expected) <= 4.5 * spread).all(), (shares, expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EVEN),
        ({"power": 0.0}, EVEN),
        ({"power": 0.5}, COUNTS**0.5),
        ({"power": 1.0}, COUNTS),
        ({"scheme": "effective", "beta": 0.99}, EFFECTIVE),
        ({"scheme": "effective", "beta": 0.0}, COUNTS),
        ({"scheme": "effective"}, COUNTS / (1 - 0.9999**COUNTS)),
    ],
)
def test_class_shares(options: dict[str, Any], expected: np.ndarray) -> None:
    stream = stream_of(method_of(**options))
    assert stream.shape == (DRAWS,) and stream.dtype == np.int64
    assert_shares(stream, expected.astype(np.float64))


@pytest.mark.parametrize("epoch", [0, 500, 999])
def test_progressive_moves_from_the_classes_shares_to_even_ones(epoch: int) -> None:
    passed = epoch / 1000
    stream = stream_of(method_of(scheme="progressive"), Progress(epoch, 1000))
    assert_shares(stream, (1 - passed) * COUNTS / COUNTS.sum() + passed * EVEN)


@pytest.mark.parametrize(("options", "turn"), [({}, 4), ({"images_per_class": 1}, 1), ({"images_per_class": 7}, 7)])
def test_class_aware_batches_take_turns(options: dict[str, int], turn: int) -> None:
    drawn = LABELS[stream_of(method_of(scheme="class_aware", **options), length=40 * turn)].reshape(-1, turn)
    assert (drawn == drawn[:, :1]).all()
    for start in range(0, 40, 4):
        assert sorted(drawn[start : start + 4, 0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("scheme", ["balanced", "progressive", "effective", "class_aware"])
def test_a_class_that_the_pool_lacks_is_left_out(scheme: str) -> None:
    labels = LABELS[LABELS != 2]
    drawn = labels[stream_of(method_of(scheme=scheme, beta=0.0, power=0.0), Progress(1, 2), labels, 12_000)]
    counts = np.bincount(labels, minlength=4)
    even = (counts > 0) / 3
    expected = {"progressive": (counts / counts.sum() + even) / 2, "effective": counts / counts.sum()}.get(scheme, even)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 12_000, expected, atol=0.02)
