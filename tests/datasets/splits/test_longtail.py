"""Long-tailed counts, and splits by image and by lesion."""

import numpy as np
import pytest

from ltbench.datasets.splits import lesion_choice
from ltbench.datasets.splits.longtail import (
    PARTS,
    lesion_capacity,
    longtail_counts,
    pareto_class_counts,
    rank_classes,
    split_by_image,
    split_by_lesion,
)
from ltbench.errors import UserError

ISIC = np.array([12875, 4522, 3323, 2624, 867, 628, 253, 239])


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (100, [5000, 2590, 1342, 695, 360, 187, 97, 51]),
        (200, [5000, 2346, 1101, 517, 243, 114, 54, 25]),
        (500, [5000, 2058, 847, 349, 144, 60, 25, 11]),
        (1, [5000] * 8),
    ],
)
def test_counts_are_the_published_ones(ratio, counts):
    found = pareto_class_counts(8, 5000, ratio)
    assert found.tolist() == counts and found.dtype == np.int64


@pytest.mark.parametrize(
    "arguments",
    [(8, 5000, 0.5), (8, 5000, float("nan")), (8, 5000, float("inf")), (8, 0, 10), (8, 2.5, 10), (1, 10, 10)],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(UserError, match="must be"):
        pareto_class_counts(*arguments)


def test_counts_follow_the_measured_frequency():
    assert rank_classes(np.array([3, 9, 3, 10])).tolist() == [3, 1, 0, 2]
    shuffled = np.array([5, 0, 7, 2, 1, 6, 3, 4])
    counts = longtail_counts(ISIC[shuffled], 5000, 100, 50, 100)
    assert counts.tolist() == pareto_class_counts(8, 5000, 100)[shuffled].tolist()


@pytest.mark.parametrize("ratio", [1, 10, 100, 200, 500])
def test_auto_is_the_largest_feasible(ratio):
    counts = longtail_counts(ISIC, "auto", ratio, 50, 100)
    assert (counts + 150 <= ISIC).all()
    assert (pareto_class_counts(8, int(counts.max()) + 1, ratio) + 150 > ISIC).any()


def test_infeasible_counts_say_which_class_lacks_how_many_and_what_would_do():
    available, names = np.array([60, 1000, 200]), ("rare", "often", "some")
    with pytest.raises(UserError) as error:
        longtail_counts(available, 900, 10, 5, 10, class_names=names)
    # 900, 285 and 90 are wanted; 985, 185 and 45 are there.
    for text in ("class 'some' lacks 100 images", "class 'rare' lacks 45 images", "`--n-max auto` (here 450)"):
        assert text in str(error.value)
    assert "often" not in str(error.value)
    assert longtail_counts(available, 450, 10, 5, 10).max() == 450
    with pytest.raises(UserError, match="rare"):
        longtail_counts(available, 451, 10, 5, 10, class_names=names)
    names = ("often", "rare")
    with pytest.raises(UserError, match=r"impossible.*class 'rare' lacks 101 images"):
        longtail_counts(np.array([1000, 50]), "auto", 5, 50, 100, class_names=names)
    with pytest.raises(UserError, match=r"class 'rare' lacks.*no --n-max will do"):
        longtail_counts(np.array([1000, 50]), 500, 5, 50, 100, class_names=names)
    with pytest.raises(UserError, match="ratio 500 needs --n-max of at least 500, not 499"):
        longtail_counts(ISIC, 499, 500, 50, 100)
    with pytest.raises(UserError, match="val images a class must be a whole number"):
        longtail_counts(ISIC, 500, 500, -1, 100)


def _check(labels, split, counts, val, test):
    for part, wanted in zip(PARTS, (counts, [val] * len(counts), [test] * len(counts)), strict=True):
        assert np.bincount(labels[split[part]], minlength=len(counts)).tolist() == list(wanted)
        assert (np.diff(split[part]) > 0).all()
    chosen = np.concatenate([split[part] for part in PARTS])
    assert len(np.unique(chosen)) == len(chosen)


def _check_lesions(lesions, split):
    shown = [set(lesions[split[part]].tolist()) for part in PARTS]
    assert not (shown[0] & shown[1] or shown[0] & shown[2] or shown[1] & shown[2])


def test_split_by_image_gives_the_counts():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [100, 60, 40]))
    split = split_by_image(labels, np.array([70, 30, 10]), 10, 20, np.random.default_rng(1))
    _check(labels, split, [70, 30, 10], 10, 20)
    again = split_by_image(labels, np.array([70, 30, 10]), 10, 20, np.random.default_rng(1))
    other = split_by_image(labels, np.array([70, 30, 10]), 10, 20, np.random.default_rng(2))
    assert all((split[part] == again[part]).all() for part in PARTS)
    assert not np.array_equal(split["test"], other["test"])


@pytest.mark.parametrize("by_lesion", [False, True])
def test_val_and_test_do_not_depend_on_the_ratio_and_train_sets_nest(by_lesion):
    labels = np.repeat([0, 1], [100, 60])
    lesions = np.array([str(index // 3) for index in range(100)] + [f"b{index // 2}" for index in range(60)])
    splits = []
    for counts in ([60, 25], [60, 5]):
        rng, counts = np.random.default_rng(3), np.array(counts)
        small = split_by_lesion(labels, lesions, counts, 10, 20, rng) if by_lesion else None
        splits.append(small or split_by_image(labels, counts, 10, 20, rng))
    for part in ("val", "test"):
        assert (splits[0][part] == splits[1][part]).all()
    assert set(splits[1]["train"]) < set(splits[0]["train"])


@pytest.mark.parametrize(
    ("sizes", "train", "val", "test"),
    [
        ([2] * 40, 44, 12, 24),  # pairs, even counts: nothing is wasted
        ([2] * 40, 42, 13, 23),  # pairs, odd counts: one image each is wasted
        ([3] * 10 + [7] * 4, 28, 10, 20),  # exact only as 3 + 7 and 2 * 3 + 2 * 7, and then train is tight
        ([1] * 6 + [20] * 3, 26, 10, 20),  # the single ones are too few for val, which wastes half a large lesion
        ([5, 5, 5], 5, 5, 5),
        ([4, 4], 0, 1, 1),
    ],
)
@pytest.mark.parametrize("exact", [16, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_split_by_lesion_gives_the_counts_on_hard_sizes(sizes, train, val, test, seed, exact, monkeypatch):
    monkeypatch.setattr(lesion_choice, "_EXACT", exact)
    lesions = np.repeat([f"lesion{index}" for index in range(len(sizes))], sizes)
    order = np.random.default_rng(seed).permutation(len(lesions))
    lesions, labels = lesions[order], np.zeros(len(order), dtype=np.int64)
    capacity = lesion_capacity(labels, lesions, 1, val, test)
    assert capacity[0] >= train
    for count in (train, int(capacity[0])):
        split = split_by_lesion(labels, lesions, np.array([count]), val, test, np.random.default_rng(seed))
        _check(labels, split, [count], val, test)
        _check_lesions(lesions, split)
    with pytest.raises(UserError, match="class '0' lacks 1 images"):
        split_by_lesion(labels, lesions, capacity + 1, val, test, np.random.default_rng(seed))


def _least_waste(sizes, val, test):
    best = None
    for code in range(3 ** len(sizes)):
        owner = np.array([code // 3**index % 3 for index in range(len(sizes))])
        in_val, in_test = sizes[owner == 1].sum(), sizes[owner == 2].sum()
        if in_val >= val and in_test >= test:
            best = min(in_val + in_test, best or 10**9)
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_waste_is_the_least_there_is(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, size=6)
    val, test = rng.integers(1, 8, size=2).tolist()
    lesions, labels = np.repeat(np.arange(6).astype(str), sizes), np.zeros(sizes.sum(), dtype=np.int64)
    best = _least_waste(sizes, val, test)
    assert best is not None
    assert sizes.sum() - lesion_capacity(labels, lesions, 1, val, test)[0] == best


def test_too_few_lesions_are_refused_with_the_class():
    labels, lesions = np.zeros(200, dtype=np.int64), np.array(["one"] * 200)
    with pytest.raises(UserError, match="class 'DF' lacks at least 1 images: its 1 lesions"):
        split_by_lesion(labels, lesions, np.array([10]), 5, 5, np.random.default_rng(0), ("DF",))
    with pytest.raises(UserError, match="class 'DF' lacks at least 10 images"):
        lesion_capacity(labels[:0], lesions[:0], 1, 5, 5, ("DF",))


@pytest.mark.parametrize("seed", range(10))
def test_a_lesion_of_two_classes_stays_in_one_part(seed):
    labels = np.array([0] * 20 + [1] * 20)
    lesions = np.array([f"a{index // 2}" for index in range(16)] + ["both"] * 8 + [f"b{index}" for index in range(16)])
    split = split_by_lesion(labels, lesions, np.array([10, 8]), 4, 6, np.random.default_rng(seed))
    _check(labels, split, [10, 8], 4, 6)
    _check_lesions(lesions, split)
