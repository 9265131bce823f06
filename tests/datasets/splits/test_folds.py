"""Folds: every image is tested once, groups stay together, classes are spread evenly, seeds decide."""

import numpy as np
import pytest
from pairs import Pairs, split_of

from ltbench.datasets.splits.folds import Fold, fold_numbers
from ltbench.datasets.splits.groups import draw_groups
from ltbench.datasets.splits.manifest import Manifest, overlap
from ltbench.errors import UserError


def drawn(folds: int = 5, **changes: object) -> list[Manifest]:
    return [
        split_of(Pairs(), **{"test_per_class": None, "fold": Fold(fold, folds), **changes}) for fold in range(folds)
    ]


def numbers(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    return fold_numbers(
        labels, groups, folds, np.random.default_rng(seed), [str(own) for own in range(labels.max() + 1)]
    )


@pytest.mark.parametrize("split", ["paper", "lesion"])
def test_every_image_is_tested_once_and_no_image_is_in_two_parts(split: str) -> None:
    source, manifests = Pairs(), drawn(split=split)
    tested = np.concatenate([manifest.part("test")[0] for manifest in manifests])
    assert sorted(tested) == sorted(source.ids)
    for manifest in manifests:
        assert manifest.class_counts("test").tolist() == [12, 40, 20]
        assert manifest.class_counts("val").tolist() == [5] * 3
        assert manifest.class_counts("train").tolist() == [10, 100, 32]
        shared = overlap(manifest).pairs
        assert not any(pair.images for pair in shared)
        assert any(pair.lesion_images for pair in shared) == (split == "paper")


def test_natural_data_train_on_all_that_is_left() -> None:
    for manifest in drawn(ratio="natural", n_max=None, val_per_class=None, split="lesion"):
        assert len(manifest.ids) == 360
        assert manifest.class_counts("val").tolist() == [4, 16, 8]  # a tenth of 48, 160 and 80, in pairs


def test_folds_are_those_of_their_seed_whatever_the_ratio() -> None:
    digests = [manifest.digest for manifest in drawn()]
    assert [manifest.digest for manifest in drawn()] == digests
    assert [manifest.digest for manifest in drawn(seed=1)] != digests
    for one, other in zip(drawn(), drawn(ratio=5), strict=True):
        for part in ("val", "test"):
            assert np.array_equal(one.part(part)[0], other.part(part)[0])


def test_classes_are_spread_to_within_one_image() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(5), (103, 52, 17, 9, 5)))
    found = numbers(labels, np.arange(len(labels)).astype(str), 5)
    counts = np.array([np.bincount(labels[found == fold], minlength=5) for fold in range(5)])
    assert (np.ptp(counts, axis=0) <= 1).all() and (counts > 0).all()
    assert np.ptp(counts.sum(axis=1)) <= 5


def test_groups_of_several_classes_and_sizes_stay_whole() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(80, size=400).astype(str)
    labels = rng.choice(4, size=400, p=(0.6, 0.25, 0.1, 0.05))
    found = numbers(labels, groups, 4)
    for group in np.unique(groups):
        assert len(np.unique(found[groups == group])) == 1
    counts = np.array([np.bincount(labels[found == fold], minlength=4) for fold in range(4)])
    assert (counts > 0).all() and (np.ptp(counts, axis=0) <= 0.2 * counts.sum(axis=0)).all()
    assert np.array_equal(found, numbers(labels, groups, 4)) and not np.array_equal(
        found, numbers(labels, groups, 4, 1)
    )


def test_validation_takes_patients_of_several_classes_as_test_does() -> None:
    rng, share = np.random.default_rng(0), []
    groups = np.repeat(np.arange(100), 3).astype(str)
    labels = np.zeros(300, dtype=np.int64)
    labels[::3] = rng.choice([1, 2, 3], 100, p=(0.6, 0.3, 0.1))  # every patient has two of class 0 and another
    labels[150:] = np.repeat(rng.choice(4, 50, p=(0.6, 0.2, 0.1, 0.1)), 3)  # the others show one class
    names, wanted = list("abcd"), np.maximum(np.bincount(labels) // 10, 1)
    for seed in range(40):
        chosen = draw_groups(labels, groups, wanted, np.random.default_rng(seed), names)
        assert all(len(np.unique(chosen[groups == group])) == 1 for group in np.unique(groups))
        held = np.bincount(labels[chosen], minlength=4)
        assert (held >= wanted).all() and (np.bincount(labels) - held > 0).all() and chosen.sum() < 75
        share.append((chosen & (np.arange(300) < 150)).sum() / chosen.sum())
    assert 0.4 < np.mean(share) < 0.8
    with pytest.raises(UserError, match="class 'b' has too few lesions or groups to give one to val"):
        draw_groups(np.array([0, 0, 1, 1]), np.array(["x", "y", "z", "z"]), np.array([1, 1]), rng, list("ab"))


def test_too_few_groups_of_a_class_say_how_many_folds_are_possible() -> None:
    labels, groups = np.repeat([0, 1], (20, 6)), np.array([f"g{index // 2}" for index in range(26)])
    with pytest.raises(UserError, match="class '1' has 3 groups, fewer than 5 folds; at most --folds 3 is possible"):
        numbers(labels, groups, 5)
    with pytest.raises(UserError, match="class '1' has 6 images, fewer than 7 folds; at most --folds 6"):
        numbers(labels, np.arange(26).astype(str), 7)
    with pytest.raises(UserError, match="class '1' has 1 image, fewer than 2 folds; folds are not possible with it"):
        numbers(np.array([0, 0, 1]), np.array(["a", "b", "c"]), 2)
    with pytest.raises(UserError, match="class '1' has 2 images, fewer than 3 folds; folds are not possible with it"):
        numbers(np.array([0, 0, 0, 1, 1]), np.array(list("abcde")), 3)  # two folds leave it one image for two parts


def test_validation_images_that_folds_cannot_give_are_refused_with_what_they_can() -> None:
    for number, split in ((48, "paper"), (0, "lesion")):
        with pytest.raises(UserError, match=rf"--val-per-class {number} is not possible: class 'a' .* give 1 to 47"):
            drawn(val_per_class=number, split=split)


@pytest.mark.parametrize("changes", [{"split": "official"}, {"per_lesion": "one"}])
def test_folds_are_of_all_images(changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match="--folds is for splits of all images that are drawn here"):
        drawn(**changes)


def test_train_and_val_need_images_outside_a_fold() -> None:
    source = Pairs()
    source.labels = np.where(np.arange(360) < 2, 0, 1 + np.arange(360) % 2)
    with pytest.raises(UserError, match=r"class 'a' has 1 image\(s\) outside a fold"):
        split_of(source, test_per_class=None, fold=Fold(0, 2))
