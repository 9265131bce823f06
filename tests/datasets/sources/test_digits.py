"""The digits of scikit-learn: real, offline, the same at every call."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ltbench import datasets
from ltbench.datasets.loading import load
from ltbench.datasets.sources.digits import Digits


@pytest.fixture(scope="module")
def source() -> Digits:
    return Digits()


def test_registered_as_real_data_for_a_quick_look() -> None:
    assert datasets.registry.get("digits") is Digits
    assert "real handwritten digits" in datasets.registry.summary("digits") and "real" in Digits.title
    assert (Digits.preset, Digits.licence, Digits.default_n_max) == ("quick", "CC BY 4.0", "auto")
    assert datasets.registry.details("digits")["Licence"] == "CC BY 4.0."


def test_images_are_those_of_the_original(source: Digits) -> None:
    assert len(set(source.ids.tolist())) == 1797 and source.present.all()
    assert source.labels.dtype == np.int64 and np.array_equal(source.labels, load_digits().target)
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert source.class_names[7] == "seven" and len(source.class_names) == 10
    assert source.parts is None and source.lesions is source.ids
    image = pickle.loads(pickle.dumps(source)).read(12, 8)
    assert image.shape == (3, 8, 8) and image.dtype == np.uint8
    assert np.abs(image[0] / 255 * 16 - load_digits().images[12]).max() < 0.05
    large = source.read(12, 46)
    assert large.shape == (3, 46, 46) and (large[0] == large[1]).all() and (large[1] == large[2]).all()
    assert np.corrcoef(large[0, 3::6, 3::6][:8, :8].ravel(), image[0].ravel())[0, 1] > 0.9
    marks = source.fingerprints(np.arange(1797))
    assert marks.dtype == np.int64 and (marks != 0).all() and len(set(marks.tolist())) > 1700
    other = Digits()
    other._images[5, 0, 0] ^= 1
    assert (other.fingerprints(np.arange(1797)) != marks).nonzero()[0].tolist() == [5]


@pytest.mark.parametrize(("ratio", "tail"), [(20, 7), (100, 2)])
def test_a_long_tail_is_drawn_without_further_numbers(ratio: float, tail: int, tmp_path) -> None:
    dataset = load("digits", root=tmp_path, ratio=ratio, image_size=16, cache=tmp_path / "images")
    assert dataset.class_counts.max() >= 120 and dataset.class_counts.min() == tail
    assert dataset.manifest.class_counts("val", 10).tolist() == [15] * 10
    assert dataset.manifest.class_counts("test", 10).tolist() == [30] * 10
    part = dataset.part("test")
    assert len(dataset.manifest.part("test")[0]) == 300 and part is not None
