"""A user's own folder of images: divided or not, and every way in which it may be wrong."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from ltbench.datasets import registry
from ltbench.datasets.loading import load
from ltbench.datasets.sources.imagefolder import ImageFolder
from ltbench.errors import UserError


def _fill(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg"):
            Image.new("RGB", (8, 6), "red").save(path)
        else:
            path.touch()


def test_a_folder_for_each_class(tmp_path):
    files = ["benign, or so/1.png", "benign, or so/deep/er/1.JPG", "malignant 中/ü.png"]
    _fill(tmp_path, *files, "benign, or so/.hidden.png", ".git/x.png", "malignant 中/.cache/y.png", "notes.txt")
    _fill(tmp_path, "__MACOSX/benign, or so/z.png", "malignant 中/notes.txt")
    source = ImageFolder(tmp_path)
    assert registry.get("imagefolder") is ImageFolder
    assert source.ids.tolist() == files and source.present.all()
    assert source.class_names == ("benign, or so", "malignant 中") and source.labels.tolist() == [0, 0, 1]
    assert source.parts is None and source.default_split == "paper" and not source.has_lesion_ids
    assert source.lesions.tolist() == files and source.licence == "yours"
    assert source.read(1, 4).shape == (3, 4, 4) and source.fingerprints(np.arange(3)).all()


def test_parts_are_used_where_the_folder_is_divided(tmp_path):
    _fill(tmp_path, "train/b/1.png", "train/a/2.png", "train/b/deep/3.png", "val/a/1.png", "test/b/1.png")
    (tmp_path / "test" / "a").mkdir()
    source = ImageFolder(tmp_path)
    assert source.class_names == ("b", "a") and source.default_split == "official"
    names = ["test/b/1.png", "train/a/2.png", "train/b/1.png", "train/b/deep/3.png", "val/a/1.png"]
    assert source.ids.tolist() == names
    assert source.parts.tolist() == ["test", "train", "train", "train", "val"]
    assert source.labels.tolist() == [0, 1, 0, 0, 1]
    assert load("imagefolder", root=tmp_path).notes == ("val has no image of b", "test has no image of a")


@pytest.mark.parametrize(
    "folders",
    [
        "train valid test",
        "training validation testing",
        "Train Val Test",
        "TRAINING VALID",
        "training_set Val-Set testset",
    ],
)
def test_parts_have_several_spellings(folders, tmp_path):
    expected = dict(zip(folders.split(), ("train", "val", "test"), strict=False))
    _fill(tmp_path, *(f"{folder}/{name}/1.png" for folder in expected for name in "ab"))
    source = ImageFolder(tmp_path)
    assert source.class_names == ("a", "b") and source.default_split == "official"
    assert source.parts.tolist() == [expected[image.split("/")[0]] for image in source.ids.tolist()]
    assert source.read(0, 4).shape == (3, 4, 4)


def test_folders_that_repeat_are_no_classes_unless_the_user_says_so(tmp_path):
    _fill(tmp_path, *(f"{fold}/{name}/1.png" for fold in ("fold1", "fold2") for name in "abc"))
    with pytest.raises(UserError, match=r"fold1, fold2, and in several a, b, c: .*class_level=1"):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, class_level="1").class_names == ("fold1", "fold2")
    inner = ImageFolder(tmp_path, class_level=2)
    assert inner.class_names == ("a", "b", "c") and inner.parts is None
    for gone in ("fold1/a/1.png", "fold2/b/1.png"):
        (tmp_path / gone).unlink()
        (tmp_path / gone).parent.rmdir()
    with pytest.raises(UserError, match="fold1, fold2, and in several c: "):
        ImageFolder(tmp_path)


def test_what_is_left_out_is_counted_and_named(tmp_path):
    _fill(
        tmp_path,
        "a/1.png",
        "a/1_mask.png",
        "b/2-with-mask.png",
        "a/1.gif",
        "b/2.GIF",
        "b/IM0003",
        "b/._2.png",
        "a/notes.txt",
    )
    assert ImageFolder(tmp_path).ids.tolist() == ["a/1.png", "b/2-with-mask.png"]
    _fill(tmp_path, "a/@eaDir/1.png/thumb.jpg", "a/@eaDir/1.png/thumb_xl.jpg", "b/Thumbnails/1.png")
    source = ImageFolder(tmp_path)
    assert source.ids.tolist() == ["a/1.png", "b/2-with-mask.png"]
    (note,) = source.notes
    for said in (
        "1 masks .*a/1_mask.png",
        r"2 files .*\.gif.*a/1.gif",
        "1 files with no suffix.*b/IM0003",
        "1 hidden",
        "3 images .*@eaDir",
    ):
        assert re.search(said, note)


def test_classes_that_differ_in_spelling_are_named_and_joined_if_asked_for(tmp_path):
    _fill(tmp_path, "train/Nevus/1.png", "train/Nevus/2.png", "test/nevus/1.png", "train/mel/1.png")
    source = ImageFolder(tmp_path)
    assert len(source.class_names) == 3 and "'nevus' and 'Nevus'" in source.notes[0]
    assert ImageFolder(tmp_path, merge_labels=True).class_names == ("Nevus", "mel")


def test_classes_may_be_called_train_and_changed_folders_are_variants(tmp_path):
    _fill(tmp_path, "train/1.png", "car/1.png")
    assert ImageFolder(tmp_path).class_names == ("car", "train")
    _fill(tmp_path, "a/1.png", "b/1.png")
    before = ImageFolder(tmp_path).variant
    _fill(tmp_path, "b/2.png")
    assert ImageFolder(tmp_path).variant != before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no image in a folder of its class"),
        (["a/1.txt", "b/2.dcm"], r"has no image in a folder of its class.* 1 files with the suffix \.dcm"),
        (["a/1.png"], "has only the class 'a'"),
        (["a/1.png", "b/1.png", "c/1.txt"], "the class folder .*/c has no image"),
        (["a/1.png", "b/1.png", "x.png"], r"the image .*/x\.png is in no class folder"),
        (["train/a/1.png", "train/b/1.png", "val/x.png"], r"the image .*/val/x\.png is in no class folder"),
        (
            ["train/a/1.png", "train/b/1.png", "test/b/1.png", "labels/x.txt"],
            "has the parts test, train and also 'labels'",
        ),
        (["Training/a/1.png", "valid/b/1.png", "labels/x.txt"], "has the parts Training, valid and also 'labels'"),
        (["train/a/1.png", "val/b/1.png", "valid/b/1.png"], "has the part val twice, as val and valid; join them"),
        (["Test/a/1.png", "testing/b/1.png"], "has the part test twice, as Test and testing; join them"),
        (["a/1.png", "b/line\nbreak.png"], "has characters that are not text"),
        (["a/1.png", os.fsdecode(b"b/\xff.png")], "has characters that are not text"),
    ],
)
def test_a_folder_in_disorder_is_refused(names, message, tmp_path):
    _fill(tmp_path, *names)
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("link", ["b/2.png", "c"])
def test_links_are_refused(link, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    _fill(outside, "2.png")
    _fill(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / link).symlink_to(outside / "2.png" if link.endswith("png") else outside)
    with pytest.raises(UserError, match=f"{link} is a link, which is not followed"):
        ImageFolder(tmp_path)


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(UserError, match="--data-root"):
        ImageFolder()
    with pytest.raises(UserError, match="absent does not exist"):
        ImageFolder(tmp_path / "absent")
    _fill(tmp_path, "a/1.png", "b/1.png")
    source = ImageFolder(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot read the image .*b/1\.png: .*; restore the file"):
        source.read(1, 4)
