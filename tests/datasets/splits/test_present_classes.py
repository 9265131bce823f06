"""A source without the classes of which no image is there."""

import numpy as np
import pytest

from ltbench.datasets.sources.synthetic import Synthetic
from ltbench.datasets.splits.manifest import Manifest
from ltbench.datasets.splits.present_classes import renumbered, without_absent_classes
from ltbench.errors import UserError


def _source(*labels):
    source = Synthetic()
    source.present = np.isin(source.labels, labels)
    source.groups = {"head": (0, 1), "medium": (2, 3, 4), "tail": (5, 6, 7)}
    return source


def test_classes_are_numbered_anew_and_images_keep_their_places():
    source = Synthetic()
    assert without_absent_classes(source) is source
    source = _source(1, 2, 6)
    reduced = without_absent_classes(source)
    assert reduced.class_names == tuple(source.class_names[label] for label in (1, 2, 6))
    assert dict(reduced.groups) == {"head": (0,), "medium": (1,), "tail": (2,)}
    assert reduced.ids is source.ids and len(source.class_names) == 8
    assert np.unique(reduced.labels[reduced.present]).tolist() == [0, 1, 2]
    assert (reduced.labels[~reduced.present] == -1).all() and source.labels.min() == 0
    with pytest.raises(UserError, match=r"has images of 1 class\(es\)"):
        without_absent_classes(_source(3))
    manifest = Manifest(*(np.array(c) for c in (["a", "b"], [5, 2], ["x", "y"], ["a", "b"], ["train", "test"])))
    assert renumbered(manifest, ("y", "x")).labels.tolist() == [1, 0]
