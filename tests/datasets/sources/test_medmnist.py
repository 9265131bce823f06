"""MedMNIST: small files in the package's format, read as they are, and what may be wrong with one."""

import csv
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ltbench import datasets
from ltbench.datasets.images.store import StoreBuilder
from ltbench.datasets.loading import load
from ltbench.datasets.sources import medmnist
from ltbench.datasets.sources.medmnist import SIZES, MedMnist, med_sets
from ltbench.errors import UserError

COUNTS = {"train": 40, "val": 9, "test": 12}


def _arrays(size=28, classes=7, rgb=True, counts=COUNTS, seed=0):
    """Return the arrays of a file: the labels of each part go round the classes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in counts.items():
        shape = (count, size, size, 3) if rgb else (count, size, size)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return arrays


def _write(path, save=np.savez_compressed, **changes):
    arrays = {**_arrays(), **changes}
    save(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    _write(tmp_path / "dermamnist.npz")
    return tmp_path


def _error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        MedMnist(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_and_downloads_of_all_sets() -> None:
    assert datasets.registry.get("medmnist") is MedMnist
    sets = med_sets()
    assert len(sets) == 12 and {"pathmnist", "dermamnist", "organsmnist", "chestmnist"} < set(sets)
    assert [name for name, facts in sets.items() if facts.task.startswith("multi-label")] == ["chestmnist"]
    assert [name for name, facts in sets.items() if facts.licence != "CC BY 4.0"] == ["dermamnist"]
    # The article's 708,069 less the 107 images by which version 3 has fewer in the organ sets.
    assert sum(sum(facts.images.values()) for facts in sets.values()) == 708_069 - 107
    sums = [digest for facts in sets.values() for digest in facts.md5.values()]
    assert len(set(sums)) == 12 * len(SIZES) and all(len(digest) == 32 and int(digest, 16) for digest in sums)
    with medmnist._FACTS.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {12}
    assert sets["bloodmnist"].url(64).endswith("/records/10519652/files/bloodmnist_64.npz?download=1")
    (remote,) = MedMnist.remotes(set="bloodmnist", size="64")
    assert remote.name == "bloodmnist_64.npz" and remote.checksum == "md5:2b94928a2ae4916078ca51e05b6b800b"
    assert remote.url == "https://zenodo.org/records/10519652/files/bloodmnist_64.npz?download=1"
    assert MedMnist.remotes()[0].name == "dermamnist.npz"
    for options, told in (({"set": "chestmnist"}, "several labels"), ({"size": 32}, "size must be one of")):
        with pytest.raises(UserError, match=told):
            MedMnist.remotes(**options)


def test_a_file_gives_labels_parts_names_and_licence(root) -> None:
    source = MedMnist(root)
    assert source.title == "MedMNIST dermamnist 28 px, 61 images instead of 10,015"
    assert (source.variant, source.licence) == ("dermamnist-28", "CC BY-NC 4.0")
    assert "Yang et al." in source.citation and "Tschandl et al." in source.citation
    assert (source.default_ratio, source.default_split) == ("natural", "official")
    assert source.class_names[4:6] == ("melanoma", "melanocytic nevi") and len(source.class_names) == 7
    assert {part: int((source.parts == part).sum()) for part in COUNTS} == COUNTS
    assert source.labels.dtype == np.int64 and source.labels[[0, 39, 40, 60]].tolist() == [0, 4, 0, 4]
    assert [source.ids[row] for row in (0, 40, 60)] == [
        f"dermamnist_{name}" for name in ("train_000000", "val_000000", "test_000011")
    ]
    assert len(set(source.ids.tolist())) == 61 and source.present.all() and source.patients is None


def test_a_whole_file_needs_no_remark_in_its_title(tmp_path) -> None:
    facts = med_sets()["breastmnist"]
    _write(tmp_path / "breastmnist.npz", **_arrays(classes=2, rgb=False, counts=facts.images))
    source = MedMnist(tmp_path, set="breastmnist")
    assert source.title == "MedMNIST breastmnist 28 px"
    assert source.class_names == ("malignant", "normal, benign") and source.licence == "CC BY 4.0"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("held", [0, 2**20])
@pytest.mark.parametrize("rgb", [True, False])
def test_images_are_those_of_the_arrays_in_any_order(rgb, held, save, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(medmnist, "_HELD", held)
    arrays = _arrays(rgb=rgb)
    _write(tmp_path / "dermamnist.npz", save, **arrays)
    source = MedMnist(tmp_path)
    source.read(3, 28)
    source = pickle.loads(pickle.dumps(source))
    expected = np.concatenate([arrays[f"{part}_images"] for part in COUNTS])
    expected = expected.transpose(0, 3, 1, 2) if rgb else np.repeat(expected[:, None], 3, axis=1)
    for position in (0, 1, 17, 39, 40, 60, 48, 5):
        image = source.read(position, 28)
        assert image.flags.c_contiguous and np.array_equal(image, expected[position])
    assert source.read(7, 33).shape == (3, 33, 33) and source.read(7, 16).dtype == np.uint8


def test_the_smallest_file_of_at_least_the_image_size_is_taken(tmp_path) -> None:
    for size in (28, 64):
        _write(tmp_path / medmnist.med_sets()["dermamnist"].file_name(size), **_arrays(size))
    chosen = {image_size: MedMnist(tmp_path, image_size=image_size).variant for image_size in (16, 28, 29, 64, 224)}
    assert [int(variant.rpartition("-")[2]) for variant in chosen.values()] == [28, 28, 64, 64, 64]
    assert MedMnist(tmp_path).title.startswith("MedMNIST dermamnist 64 px")
    assert MedMnist(tmp_path, size="28", image_size=224).variant == "dermamnist-28"
    assert MedMnist.found_at(tmp_path) and not MedMnist.found_at(tmp_path / "none")


def test_a_changed_file_is_decoded_again_and_a_copied_one_is_not(root, tmp_path_factory) -> None:
    cache = tmp_path_factory.mktemp("cache")
    source = MedMnist(root)
    marks = source.fingerprints(np.arange(61))
    assert marks.dtype == np.int64 and (marks != 0).all() and len(set(marks.tolist())) == 61
    store = StoreBuilder(source, 28, cache).build(np.arange(61), quiet=True)
    before = store.pixels[:].copy()
    _write(root / "dermamnist.npz")
    assert np.array_equal(MedMnist(root).fingerprints(np.arange(61)), marks)
    images = _arrays()["val_images"]
    images[3] = 255 - images[3]
    _write(root / "dermamnist.npz", val_images=images)
    changed = MedMnist(root)
    assert set((changed.fingerprints(np.arange(61)) != marks).nonzero()[0]) == set(range(40, 49))
    after = StoreBuilder(changed, 28, cache).build(np.arange(61), quiet=True).pixels
    assert (after != before).any(axis=(1, 2, 3)).nonzero()[0].tolist() == [43]


def test_a_long_tail_is_drawn_and_official_parts_are_as_they_are(root, tmp_path) -> None:
    drawn = {"ratio": 2, "split": "paper", "val_per_class": 1, "test_per_class": 2}
    options = {"set": "dermamnist", "size": "28"}
    dataset = load("medmnist", root=root, image_size=16, cache=tmp_path / "images", options=options, **drawn)
    assert dataset.source.variant == "dermamnist-28" and dataset.class_counts.sum() < 61 - 3 * 7
    assert dataset.class_counts.max() == 2 * dataset.class_counts.min() - 1
    assert dataset.store().pixels.shape == (61, 3, 19, 19)
    dataset = load("medmnist", root=root, image_size=16, cache=tmp_path / "images")
    assert (dataset.split, dataset.ratio) == ("official", 1.2)
    for part, count in COUNTS.items():
        ids, labels = dataset.manifest.part(part)
        assert len(ids) == count and all(part in name for name in ids)
        assert np.bincount(labels, minlength=7).tolist() == [count // 7 + (k < count % 7) for k in range(7)]
    assert [pair.images for pair in dataset.overlap.pairs] == [0, 0, 0]


def test_what_is_not_there_or_goes_away_is_refused_by_name(root) -> None:
    assert "did you mean 'dermamnist'" in _error(root, set="dermanist")
    assert "chestmnist has several labels an image" in _error(root, set="chestmnist")
    assert "'organmnist3d' holds volumes" in _error(root, set="organmnist3d")
    assert "size must be one of 28, 64, 128, 224, got '32'" in _error(root, size="32")
    missing = _error(root, size="64")
    assert "dermamnist_64.npz is missing (there is size 28)" in missing and "zenodo.org" in missing
    assert "has none of bloodmnist.npz, bloodmnist_64.npz" in _error(root, set="bloodmnist")
    assert "does not exist" in _error(root / "gone") and "--data-root" in _error(None)
    source = MedMnist(root)
    (root / "dermamnist.npz").unlink()
    with pytest.raises(UserError, match=r"dermamnist\.npz: No such file"):
        source.read(0, 28)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"val_images": None}, "lacks the array val_images"),
        ({"test_labels": None}, "lacks the array test_labels"),
        ({"val_images": np.zeros((9, 28, 28, 3), np.float32)}, "val_images has the type float32"),
        ({"val_images": np.zeros((9, 28, 28, 3), np.int16)}, r"val_images is int16 \(9, 28, 28, 3\); uint8 \(9, 28"),
        ({"val_images": np.zeros((9, 32, 32, 3), np.uint8)}, r"val_images is uint8 \(9, 32, 32, 3\)"),
        ({"val_images": np.zeros((8, 28, 28, 3), np.uint8)}, "one image a label"),
        ({"val_images": np.asfortranarray(_arrays()["val_images"])}, "val_images is stored by column"),
        ({"val_labels": np.zeros((9, 14), np.uint8)}, r"val_labels has the shape \(9, 14\); one label an image"),
        ({"val_labels": np.uint8(3)}, r"val_labels has the shape \(\)"),
        ({"val_labels": np.zeros((9, 1))}, "val_labels has the type float64"),
        ({"val_labels": np.array([["x"]] * 9, dtype=object)}, "val_labels has the type object"),
        ({"val_labels": np.array([0, 1, 7] * 3)[:, None]}, "row 2 of val_labels is 7; the set has the classes 0 to 6"),
        ({"val_labels": np.array([0, -1, 2] * 3)[:, None]}, "row 1 of val_labels is -1"),
    ],
)
def test_an_array_that_is_no_set_is_refused_with_file_and_array(changes, told, tmp_path) -> None:
    path = _write(tmp_path / "dermamnist.npz", **changes)
    with pytest.raises(UserError, match=told) as caught:
        MedMnist(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "shorter", "version"])
def test_a_damaged_file_is_refused_by_name(damage, root) -> None:
    path = root / "dermamnist.npz"
    content = path.read_bytes()
    if damage in ("shorter", "version"):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        images = members["val_images.npy"]
        members["val_images.npy"] = images[:-1] if damage == "shorter" else images[:6] + b"\x03" + images[7:]
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        path.write_bytes({"truncated": content[:-400], "empty": b"", "garbage": b"no archive" * 99}[damage])
    assert str(path) in _error(root)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("held", [0, 2**20])
def test_no_image_of_a_part_with_a_changed_byte_is_used(held, save, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(medmnist, "_HELD", held)
    path = _write(tmp_path / "dermamnist.npz", save)
    with zipfile.ZipFile(path) as archive:
        facts = archive.getinfo("train_images.npy")
    content = bytearray(path.read_bytes())
    content[facts.header_offset + facts.compress_size * 3 // 4] ^= 1
    path.write_bytes(content)
    source = MedMnist(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*dermamnist\.npz: .*train_images"):
        source.read(0, 28)  # long before the damage
    with pytest.raises(UserError, match=r"dermamnist\.npz: train_images\.npy is damaged"):
        source.read(1, 28)
    assert source.read(45, 28).shape == (3, 28, 28)  # of another part
