"""Splits of a source, drawn or published."""

from pathlib import Path

import numpy as np
import pytest
from pairs import Pairs, split_of
from real_data import DATA

from ltbench.datasets.loading import load, require_common_test
from ltbench.datasets.sources.isic2019 import Isic2019
from ltbench.datasets.splits.draw import published_manifest, restrict
from ltbench.datasets.splits.longtail import held_out_counts, pareto_class_counts
from ltbench.datasets.splits.manifest import overlap
from ltbench.datasets.splits.unused import unused_line
from ltbench.errors import UserError

real = pytest.mark.skipif(not (DATA / "isic2019-ham").is_dir(), reason="the ISIC 2019 folder is not here")


@pytest.mark.parametrize("split", ["paper", "lesion"])
def test_a_drawn_split_has_the_counts_by_measured_frequency_and_its_seed(split):
    source = Pairs()
    manifest = split_of(source, split=split)
    assert manifest.class_counts("train").tolist() == [10, 100, 32]
    assert manifest.class_counts("val").tolist() == [5] * 3
    assert manifest.class_counts("test").tolist() == [10] * 3
    shared = [pair.lesion_images for pair in overlap(manifest).pairs]
    assert any(shared) == (split == "paper") and not any(pair.images for pair in overlap(manifest).pairs)
    np.random.seed(1)  # noqa: NPY002  the global state must not matter
    first = split_of(Pairs(), split=split)
    np.random.seed(2)  # noqa: NPY002
    assert split_of(Pairs(), split=split).digest == first.digest
    assert split_of(Pairs(), split=split, seed=1).digest != first.digest
    assert len(first.digest) == 64


@pytest.mark.parametrize("split", ["paper", "lesion"])
@pytest.mark.parametrize("ratio", [4, "natural"])
def test_one_image_a_lesion_is_a_case_of_its_own(split, ratio):
    n_max = None if ratio == "natural" else "auto"
    one, other = (split_of(Pairs(), split=split, ratio=each, n_max=n_max, per_lesion="one") for each in (ratio, 2))
    held_out = one.lesions[one.parts != "train"]
    assert len(held_out) == len(np.unique(held_out)) == 3 * 15
    assert one.class_counts("val").tolist() == [5] * 3 and one.class_counts("test").tolist() == [10] * 3
    assert np.isin(one.lesions[one.parts == "train"], held_out).any() == (split == "paper")
    assert one.part("test")[0].tolist() == other.part("test")[0].tolist()
    unused = str(unused_line(Pairs(), one, split, "one"))
    assert ("other images of lesions of which one is in val or test" in unused) == (split == "lesion")
    assert "left over" not in unused


def test_shares_by_lesion_hold_out_lesions_of_several_classes_too():
    source = Pairs()
    source.lesions = np.array([f"L{index // 2}" for index in range(360)])
    source.labels = np.where(np.arange(360) % 2, 0, 1 + np.arange(360) // 2 % 2)  # every lesion has an image of class 0
    drawn = split_of(source, split="lesion", ratio="natural", n_max=None, val_per_class=None, test_per_class=None)
    assert not any(pair.lesion_images for pair in overlap(drawn).pairs) and len(drawn.ids) == 360
    assert (drawn.class_counts("test") >= (36, 18, 18)).all() and (drawn.class_counts("val") >= (18, 9, 9)).all()
    with pytest.raises(UserError, match="lacks at least 35 images: its 0 lesions"):
        split_of(source, split="lesion", ratio="natural", n_max=None, val_per_class=5, test_per_class=30)


def test_auto_allows_for_the_images_that_whole_lesions_waste():
    # 15 images a class are held out by image; by lesion val takes 6 to show 5.
    assert split_of(Pairs(), ratio=1, n_max="auto").class_counts("train").tolist() == [45] * 3
    by_lesion = split_of(Pairs(), ratio=1, n_max="auto", split="lesion")
    assert by_lesion.class_counts("train").tolist() == [44] * 3
    with pytest.raises(UserError, match=r"class 'a' lacks 1 images; use `--n-max auto` \(here 44\)"):
        split_of(Pairs(), ratio=1, n_max=45, split="lesion")


@pytest.mark.parametrize("split", ["paper", "lesion"])
def test_missing_images_are_an_error_unless_allowed(split):
    source = Pairs()
    source.present[[3, 8]] = False
    with pytest.raises(UserError, match=r"pairs: 2 of 360 images missing \(first: image003\).*--allow-missing"):
        split_of(source, split=split)
    manifest = split_of(source, split=split, n_max="auto", allow_missing=True)
    assert not np.isin(["image003", "image008"], manifest.ids).any()
    source.present[source.labels == 0] = False
    with pytest.raises(UserError, match="'a' lacks"):
        split_of(source, split=split, n_max="auto", allow_missing=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "lesions"}, "unknown split 'lesions'; did you mean 'lesion'"),
        ({"split": "lesion", "split_dir": Path("x")}, "--split-dir .* goes with --split paper"),
        ({"split_dir": Path("absent")}, "absent does not exist"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"ratio": 0.5}, "ratio must be"),
        ({"n_max": "most"}, "n_max must be a whole number"),
        ({"n_max": 300}, "class 'b' lacks 115 images"),
        ({"n_max": 300, "val_per_class": 60}, "no --n-max will do: use fewer val or test images"),
        ({"n_max": "auto", "val_per_class": 1000}, "; use fewer val or test images"),
        ({"test_per_class": 26, "per_lesion": "one"}, "class 'a' lacks 1 lesions"),
        ({"per_lesion": "one", "split": "official"}, "--per-lesion one is for splits that are drawn"),
        ({"per_lesion": "two"}, "unknown --per-lesion 'two'"),
        ({"test_per_class": 70, "split": "lesion"}, "class 'a' lacks at least 15 images"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        split_of(Pairs(), **changes)


def _publish(folder, **parts):
    for part, names in parts.items():
        np.save(folder / f"{part}_10.npy", np.array([f"{name}.jpg" for name in names]))


def test_published_files_are_read_and_checked(tmp_path):
    source = Pairs()
    _publish(tmp_path, train=source.ids[:30], val=source.ids[40:50], test=source.ids[60:80])
    manifest = split_of(source, split_dir=tmp_path)
    assert [len(manifest.part(part)[0]) for part in ("train", "val", "test")] == [30, 10, 20]
    source.present[[0, 100]] = False
    with pytest.raises(UserError, match=r"1 of 60 images missing \(first: image000\)"):
        split_of(source, split_dir=tmp_path)
    whole = split_of(source, split_dir=tmp_path, allow_missing=True)
    assert whole.digest == manifest.digest
    kept = restrict(whole, source.ids[source.present])
    assert len(kept.ids) == 59 and "image000" not in kept.ids
    with pytest.raises(UserError, match="none of the val images"):
        restrict(whole, source.ids[:35])
    rest = np.concatenate([source.ids[:30][source.labels[:30] != 0], source.ids[30:]])
    with pytest.raises(UserError, match="none of the train images of class 'a'"):
        restrict(whole, rest)


def test_published_files_that_do_not_fit_are_refused(tmp_path):
    source = Pairs()
    _publish(tmp_path, train=source.ids[:30], val=source.ids[20:25], test=source.ids[60:80])
    with pytest.raises(UserError, match=r"has 5 image\(s\) in both train and val \(first: image020\)"):
        split_of(source, split_dir=tmp_path)
    assert overlap(published_manifest(source, tmp_path, 10)).as_dict()["train/val"]["images"] == 5
    common = source.ids[source.labels == 0]
    _publish(tmp_path, train=common[:5], val=source.ids[40:45], test=source.ids[60:80])
    with pytest.raises(UserError, match="has no train image of class "):
        split_of(source, split_dir=tmp_path)
    _publish(tmp_path, train=source.ids[:30], val=["elsewhere"], test=source.ids[60:80])
    with pytest.raises(UserError, match=r"val_10\.npy names 1 image"):
        split_of(source, split_dir=tmp_path)
    _publish(tmp_path, val=source.ids[40:45])
    labels = {f"{image}.jpg": 1 for image in source.ids.tolist()}
    np.save(tmp_path / "dic.npy", np.array(labels, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"dic\.npy gives image"):
        split_of(source, split_dir=tmp_path)


@pytest.fixture(scope="module")
def isic():
    return Isic2019(DATA / "isic2019-ham")


@real
@pytest.mark.parametrize(("ratio", "leaked"), [(100, 383), (500, 245)])
def test_the_published_splits(ratio, leaked, isic):
    manifest = split_of(isic, split_dir=DATA / "flexsampling-splits" / "8-class", ratio=ratio, allow_missing=True)
    assert manifest.class_counts("train").tolist() == pareto_class_counts(8, 5000, ratio).tolist()
    assert manifest.class_counts("val").tolist() == [50] * 8 and manifest.class_counts("test").tolist() == [100] * 8
    found = overlap(manifest)
    assert found.as_dict()["train/test"] == {"images": 0, "lesion_images": leaked, "total": 800}
    assert not any(pair.images for pair in found.pairs)
    truth = dict(zip(isic.ids.tolist(), isic.labels.tolist(), strict=True))
    assert [truth[image] for image in manifest.ids.tolist()] == manifest.labels.tolist()


@real
@pytest.mark.parametrize("ratio", [100, 200, 500])
@pytest.mark.parametrize("seed", range(3))
def test_a_split_by_lesion_has_the_published_counts(ratio, seed):
    source = Isic2019(DATA / "isic2019-ham")
    source.present[:] = True  # labels and lesions of all images are there, and no image is read
    options = {"ratio": ratio, "n_max": 5000, "val_per_class": 50, "test_per_class": 100, "seed": seed}
    manifest = split_of(source, split="lesion", **options)
    assert manifest.class_counts("train").tolist() == pareto_class_counts(8, 5000, ratio).tolist()
    assert manifest.class_counts("val").tolist() == [50] * 8 and manifest.class_counts("test").tolist() == [100] * 8
    assert not any(pair.lesion_images for pair in overlap(manifest).pairs)


@real
def test_the_14_class_files_belong_to_another_dataset(isic):
    with pytest.raises(UserError, match=r"train\.npy names \d+ image\(s\) that the labels lack \(first: ISIC_"):
        split_of(isic, split_dir=DATA / "flexsampling-splits" / "14-class", ratio="natural", allow_missing=True)


SUPPLEMENT = {
    "train": (9012, 3165, 2375, 1024, 608, 459, 268, 189, 177, 172, 22, 18, 10, 9),
    "val": (1288, 452, 339, 147, 87, 65, 39, 27, 25, 24, 3, 3, 2, 2),
    "test": (2575, 905, 679, 293, 174, 132, 77, 54, 51, 50, 7, 6, 3, 3),
}


def test_held_out_counts():
    totals = np.sum(list(SUPPLEMENT.values()), axis=0)
    val, test = held_out_counts(totals, None, None)
    assert val.tolist() == list(SUPPLEMENT["val"]) and test.tolist() == list(SUPPLEMENT["test"])
    assert (totals - val - test).tolist() == list(SUPPLEMENT["train"])
    val, test = held_out_counts(np.arange(3, 40), None, None)
    assert val.min() == 1 and test.min() == 1 and (np.arange(3, 40) - val - test).min() == 1
    with pytest.raises(UserError, match="class 'b' has 2 images; train, val and test need at least 3"):
        held_out_counts(np.array([9, 2]), None, None, ("a", "b"))
    assert [counts.tolist() for counts in held_out_counts(np.array([9, 2]), 1, 0)] == [[1, 1], [0, 0]]


@pytest.mark.parametrize(("split", "size"), [("paper", 2), ("lesion", 2), ("lesion", 20)])
def test_natural_data_are_used_whole(split, size):
    source = Pairs()
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        source.lesions[members] = [f"{name}{index // size}" for index in range(len(members))]
    manifest = split_of(source, split=split, ratio="natural", val_per_class=None, test_per_class=None)
    val, test = (-(-counts // size) * size for counts in held_out_counts(np.bincount(source.labels), None, None))
    assert manifest.class_counts("val").tolist() == val.tolist()
    assert manifest.class_counts("test").tolist() == test.tolist()
    assert len(manifest.ids) == len(source.ids) and unused_line(source, manifest, split) is None
    if split == "lesion":
        assert not any(pair.lesion_images for pair in overlap(manifest).pairs)
        exact = split_of(source, split=split, ratio="natural", val_per_class=5)
        unused = 3 * ((-5 % size) + (-10 % size))
        assert f"{unused} of 360 images (left over" in str(unused_line(source, exact, split))
    with pytest.raises(UserError, match="class 'a' has no image left to train on"):
        split_of(source, ratio="natural", val_per_class=20, test_per_class=40)


def _with_parts(*names):
    source = Pairs()
    source.parts = np.random.default_rng(3).choice(names, size=len(source.ids))
    return source


def test_official_parts_are_kept_and_train_is_thinned():
    source = _with_parts("train", "train", "train", "val", "test")
    whole = split_of(source, split="official", ratio="natural")
    for part in ("train", "val", "test"):
        assert sorted(whole.part(part)[0]) == sorted(source.ids[source.parts == part])
    thin = split_of(source, split="official", ratio=10, n_max="auto")
    counts = thin.class_counts("train")
    assert counts.max() / counts.min() == pytest.approx(10, rel=0.35) and len(thin.part("train")[0]) < len(whole.ids)
    assert set(thin.part("train")[0]) < set(whole.part("train")[0])
    for part in ("val", "test"):
        np.testing.assert_array_equal(thin.part(part)[0], whole.part(part)[0])


def test_without_a_val_part_a_tenth_of_train_is_taken():
    source = _with_parts("train", "train", "test")
    manifest = split_of(source, split="official", ratio="natural")
    own = np.bincount(source.labels[source.parts == "train"])
    np.testing.assert_array_equal(manifest.class_counts("val"), own * 8 // 10 - own * 7 // 10)
    assert sorted(manifest.part("test")[0]) == sorted(source.ids[source.parts == "test"])
    with pytest.raises(UserError, match="has no test part"):
        split_of(_with_parts("train", "val"), split="official", ratio="natural")
    with pytest.raises(UserError, match="has no parts of its own"):
        split_of(Pairs(), split="official", ratio="natural")


def _with_parts_of_whole_lesions():
    source = Pairs()
    lesions, codes = np.unique(source.lesions, return_inverse=True)
    source.parts = np.where(np.random.default_rng(4).random(len(lesions)) < 0.7, "train", "test")[codes]
    return source


@pytest.mark.parametrize("ratio", [10, "natural"])
def test_a_val_part_taken_from_train_shares_no_lesion_with_it(ratio):
    source = _with_parts_of_whole_lesions()
    manifest = split_of(source, split="official", ratio=ratio, n_max="auto")
    assert [pair.lesion_images for pair in overlap(manifest).pairs] == [0, 0, 0]
    assert manifest.class_counts("val").min() >= 1 and manifest.class_counts("train").min() >= 1
    source.has_lesion_ids = False  # by image, as nothing else is known
    assert overlap(split_of(source, split="official", ratio=ratio, n_max="auto")).pairs[1].lesion_images > 0


@pytest.mark.parametrize(
    ("lesions", "message"),
    [
        (("x",), "no image of class 'a' would be left in train; give it val images, or use another --split"),
        (("b0", "b1"), "class 'a' lacks at least .* give it val images, or use another --split"),
    ],
)
def test_a_val_part_that_whole_lesions_cannot_give_is_refused(lesions, message):
    source = _with_parts_of_whole_lesions()
    chosen = np.flatnonzero((source.labels == 0) & (source.parts == "train"))
    source.parts[np.isin(source.lesions, lesions)] = "train"
    source.lesions[chosen] = np.resize(lesions, len(chosen))
    for ratio in (2, "natural"):
        with pytest.raises(UserError, match=f"pairs has no val part, and whole lesions .* cannot give one: {message}"):
            split_of(source, split="official", ratio=ratio, n_max="auto")


@pytest.mark.parametrize(
    ("left", "others", "message"),
    [
        (0, "val", "has 0 images of class 'a' and needs 1; put"),
        (2, "test", "2 images of class 'a' and needs 3, for val"),
    ],
)
def test_a_class_that_official_parts_do_not_teach_is_refused(left, others, message):
    source = _with_parts("train", "test", others)
    source.parts[np.flatnonzero(source.labels == 0)[left:]] = "test"
    source.parts[np.flatnonzero(source.labels == 0)[:left]] = "train"
    with pytest.raises(UserError, match=message) as error:
        split_of(source, split="official", ratio="natural")
    assert "fewer val or test images" not in str(error.value)


def test_a_folder_of_one_split_goes_by_the_natural_ratio_alone(tmp_path):
    source = Pairs()
    for part, names in {"train": source.ids[:30], "val": source.ids[40:50], "test": source.ids[60:80]}.items():
        np.save(tmp_path / f"{part}.npy", names)
    assert len(split_of(source, split_dir=tmp_path, ratio="natural").ids) == 60
    with pytest.raises(UserError, match=r"has one split, whose ratio .*; use --ratio natural, not 10"):
        split_of(source, split_dir=tmp_path, ratio=10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "the val images of ratio 2 and ratio 5 differ"),
        ({"n_max": 40}, "training images of ratio 2 and ratio 5 are not nested; use"),
    ],
)
def test_ratios_without_a_common_test_set_are_told(changes, message):
    first, second = ({"n_max": 20, "val_per_class": 3, "test_per_class": 4} | more for more in ({}, changes))
    with pytest.raises(UserError, match=f"--common-test: {message}"):
        require_common_test([load("synthetic", ratio=2, **first), load("synthetic", ratio=5, **second)])
    require_common_test([load("synthetic", ratio=2, **first), load("synthetic", ratio=5, **first)])
