"""ISIC-Archive-LT: how its labels arise, what leaks, and the authors' own split."""

import numpy as np
import pytest
from PIL import Image
from real_data import DATA

from ltbench.datasets import registry
from ltbench.datasets.sources.isic2019 import GROUND_TRUTH, METADATA
from ltbench.datasets.sources.isic_archive import ADDITIONAL, DICTIONARY, IsicArchive
from ltbench.datasets.splits.draw import published_manifest
from ltbench.datasets.splits.manifest import overlap
from ltbench.errors import UserError

SPLITS = DATA / "flexsampling-splits"
real = pytest.mark.skipif(not SPLITS.is_dir(), reason="the authors' split files are not here")
COLUMNS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
TRUTH = {"I1": "NV", "I2": "BKL", "I3": "BKL", "I4": "BKL", "I5": "BKL", "I6_downsampled": "BKL", "I7": "AK"}
ADDED = {
    "I2": "seborrheic keratosis",
    "I3": "solar lentigo",
    "I4": "pigmented benign keratosis",
    "I6": "seborrheic keratosis",
    "I7": "actinic keratosis",
    "I8": "angioma",
    "ISIC_0024260": "basal cell carcinoma",
}
CLASSES = {
    **{"I1": "NV", "I2": "SK", "I3": "SL", "I5": "BKL", "I6_downsampled": "BKL", "I7": "AK"},
    **{"I6": "SK", "I8": "AN"},
}


def _write_truth(root, truth=TRUTH):
    rows = [f"{image},{','.join(str(int(name == column)) for column in COLUMNS)}" for image, name in truth.items()]
    (root / GROUND_TRUTH).write_text("\n".join([f"image,{','.join(COLUMNS)}", *rows]))
    (root / METADATA).write_text("image,lesion_id\nI1,BCN_1\nI2,BCN_1\nI4, NaN\nI6_downsampled ,MSK_6\n")


def _write_added(folder, added=ADDED):
    header = "_id,name,meta.clinical.diagnosis,meta.clinical.lesion_id,meta.clinical.patient_id"
    known = {"I8": "IL_8,IP_8"}
    rows = [f"x,{image},{diagnosis},{known.get(image, ',')}" for image, diagnosis in added.items()]
    (folder / ADDITIONAL).write_text("\n".join([header, *rows]))


def _write_dictionary(folder, classes=CLASSES):
    numbers = {f"{image}.jpg": IsicArchive.class_names.index(name) for image, name in classes.items()}
    np.save(folder / DICTIONARY, np.array(numbers, dtype=object), allow_pickle=True)


@pytest.fixture
def root(tmp_path):
    _write_truth(tmp_path)
    return tmp_path


def _classes(source):
    return dict(zip(source.ids.tolist(), (source.class_names[label] for label in source.labels), strict=True))


def test_what_the_supplement_lays_down():
    assert registry.get("isic_archive") is IsicArchive
    assert IsicArchive.class_names[:8] == ("NV", "MEL", "BCC", "SK", "AK", "SCC", "BKL", "SL")
    assert {name: len(group) for name, group in IsicArchive.groups.items()} == {"head": 4, "medium": 4, "tail": 6}
    assert sorted(label for group in IsicArchive.groups.values() for label in group) == list(range(14))
    assert sum(IsicArchive.expected_counts.values()) == 25020
    assert list(IsicArchive.expected_counts) == list(IsicArchive.class_names)


@pytest.mark.parametrize("beside", [True, False])
def test_labels_follow_from_ground_truth_and_diagnosis(beside, root):
    folder = root if beside else root / "authors"
    folder.mkdir(exist_ok=True)
    _write_added(folder)
    source = IsicArchive(root, split_dir=None if beside else folder)
    assert _classes(source) == CLASSES
    assert IsicArchive.found_at(root) == beside
    lesions = dict(zip(source.ids.tolist(), source.lesions.tolist(), strict=True))
    assert lesions["I1"] == lesions["I2"] == "BCN_1" and lesions["I5"] == "I5" and lesions["I8"] == "IL_8"
    assert lesions["I6"] == lesions["I6_downsampled"] == "MSK_6"
    assert dict(zip(source.ids.tolist(), source.patients.tolist(), strict=True))["I8"] == "IP_8"
    assert (source.patients != "").sum() == 1


def test_an_image_may_be_taken_once(root):
    _write_added(root)
    source = IsicArchive(root, copies="once")
    assert _classes(source) == {image: name for image, name in CLASSES.items() if image != "I6"}
    assert source.variant != IsicArchive(root).variant and source.title != IsicArchive(root).title
    assert source.lesions[source.ids == "I6_downsampled"] == "MSK_6"
    with pytest.raises(UserError, match="copies must be one of both, once, got 'one'"):
        IsicArchive(root, copies="one")


def test_the_dictionary_serves_where_there_is_no_table(root):
    with pytest.raises(UserError, match=rf"needs {ADDITIONAL} or {DICTIONARY} of the authors .*--split-dir"):
        IsicArchive(root)
    _write_dictionary(root)
    source = IsicArchive(root)
    assert _classes(source) == CLASSES and source.ids[-1] == "I8" and source.patients is None
    assert source.lesions[source.ids == "I6"] == "MSK_6"


def test_images_of_the_archive_have_a_folder_of_their_own_or_not(root):
    _write_added(root)
    for folder, image in (("ISIC_2019_Training_Input", "I1"), ("ISIC_Archive", "I8"), ("ISIC_Archive", "I1")):
        (root / folder).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / folder / f"{image}.jpg")
    source = IsicArchive(root)
    files = dict(zip(source.ids.tolist(), source.files.tolist(), strict=True))
    assert files["I1"] == "ISIC_2019_Training_Input/I1.jpg" and files["I8"] == "ISIC_Archive/I8.jpg"
    assert source.ids[source.present].tolist() == ["I1", "I8"]
    (root / "ISIC_Archive" / "I8.jpg").rename(root / "ISIC_2019_Training_Input" / "I8.jpg")
    assert IsicArchive(root).ids[IsicArchive(root).present].tolist() == ["I1", "I8"]


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"I2": "seborrheic keratosis", "I9": "wart"}, r"line 3 \(image 'I9'\) has an unknown meta.clinical.diagnosis"),
        ({"I9": ""}, r"line 2 \(image 'I9'\) has an unknown meta.clinical.diagnosis"),
        ({"I7": "solar lentigo"}, rf"line 2 \(image 'I7'\) contradicts the class in {GROUND_TRUTH}"),
        ({"I2": "angioma"}, rf"line 2 \(image 'I2'\) contradicts the class in {GROUND_TRUTH}"),
    ],
)
def test_a_broken_table_is_refused_with_file_and_line(added, message, root):
    _write_added(root, added)
    with pytest.raises(UserError, match=rf"{ADDITIONAL}, {message}") as error:
        IsicArchive(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [({**CLASSES, "I1": "AK"}, rf"gives I1 the class AK, {GROUND_TRUTH} NV"), ({"I7": "SK"}, "gives I7 the class SK")],
)
def test_a_dictionary_of_another_dataset_is_refused(classes, message, root):
    _write_dictionary(root, classes)
    with pytest.raises(UserError, match=rf"{DICTIONARY} {message}"):
        IsicArchive(root)
    np.save(root / DICTIONARY, np.array({"I1.jpg": 14}, dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=rf"{DICTIONARY} has the class id 14; want 0 to 13"):
        IsicArchive(root)


@real
def test_the_authors_labels_follow_to_the_image_and_so_does_their_split(tmp_path):
    folder = SPLITS / "14-class"
    source = IsicArchive(DATA / "isic2019-ham", split_dir=folder)
    assert _class_counts(source.labels) == list(source.expected_counts.values())
    manifest = published_manifest(source, folder, "natural")  # it compares each label with the authors' dictionary
    counts = [9012, 3165, 2375, 1024, 608, 459, 268, 189, 177, 172, 22, 18, 10, 9]
    assert manifest.class_counts("train", 14).tolist() == counts
    assert [len(manifest.part(part)[0]) for part in ("val", "test")] == [2503, 5009]
    shared = overlap(manifest).as_dict()["train/test"]
    assert (shared["images"], shared["lesion_images"], shared["total"]) == (0, 2932, 5009)
    assert source.present.sum() == 8916 and (source.patients != "").sum() == 152

    for name in (GROUND_TRUTH, METADATA):
        (tmp_path / name).symlink_to(DATA / "isic2019-ham" / name)
    (tmp_path / DICTIONARY).symlink_to(folder / DICTIONARY)
    assert _classes(IsicArchive(tmp_path)) == _classes(source)


@real
def test_every_bkl_image_is_a_smaller_copy_of_an_sk_image():
    classes = _classes(IsicArchive(DATA / "isic2019-ham", split_dir=SPLITS / "14-class"))
    once = IsicArchive(DATA / "isic2019-ham", split_dir=SPLITS / "14-class", copies="once")
    assert _class_counts(once.labels) == list(once.expected_counts.values()) and len(once.ids) == 25020 - 384
    copies = [
        image for image in classes if classes.get(image.removesuffix("_downsampled"), "") == "SK" and "_d" in image
    ]
    assert len(copies) == 384 and set(copies) == {image for image, name in classes.items() if name == "BKL"}


def _class_counts(labels):
    return np.bincount(labels, minlength=14).tolist()
