"""HAM10000: its table, its folders, and the real one."""

import numpy as np
import pytest
from PIL import Image
from real_data import DATA

from ltbench.datasets import registry
from ltbench.datasets.sources.ham10000 import METADATA, Ham10000
from ltbench.errors import UserError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
DIAGNOSES = ("bkl", "bkl", "nv", "akiec", "df", "mel", "bcc", "vasc")


def _write(root, rows=None):
    rows = rows or [f"HAM_{i // 2},ISIC_{i},{dx},histo,80.0,male,scalp" for i, dx in enumerate(DIAGNOSES)]
    (root / METADATA).write_text("\n".join([HEADER, *rows]) + "\n")


def _image(path):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (12, 9), "red").save(path)


def test_the_table_is_read(tmp_path):
    _write(tmp_path)
    _image(tmp_path / "HAM10000_images_part_1" / "ISIC_0.jpg")
    _image(tmp_path / "HAM10000_images_part_2" / "ISIC_7.JPG")
    source = Ham10000(tmp_path)
    assert registry.get("ham10000") is Ham10000 and Ham10000.found_at(tmp_path)
    assert source.class_names == ("NV", "MEL", "BKL", "BCC", "AKIEC", "VASC", "DF")
    assert source.ids.tolist() == [f"ISIC_{i}" for i in range(8)]
    assert source.labels.tolist() == [2, 2, 0, 4, 6, 1, 3, 5] and source.labels.dtype == np.int64
    assert source.lesions.tolist() == ["HAM_0", "HAM_0", "HAM_1", "HAM_1", "HAM_2", "HAM_2", "HAM_3", "HAM_3"]
    assert source.present.tolist() == [True, *[False] * 6, True]
    assert source.read(7, 4).shape == (3, 4, 4) and source.fingerprints(np.array([0, 7])).all()
    assert source.describe_missing().endswith("(first: ISIC_1.jpg)")


def test_the_downloads_are_of_the_names_that_are_read():
    assert [remote.name for remote in Ham10000.downloads if not remote.unpack] == [METADATA]
    folders = [remote.folder for remote in Ham10000.downloads if remote.unpack]
    assert folders == ["HAM10000_images_part_1", "HAM10000_images_part_2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["L,a,nv,,,,", "L,b,wart,,,,"], r"line 3 \(image 'b'\) has an unknown dx; known: nv, mel"),
        (["L,a,nv,,,,", "L,b,,,,,"], r"line 3 \(image 'b'\) has an unknown dx"),
        (["L,a,nv,,,,", ",b,nv,,,,"], r"line 3 \(image 'b'\) has no lesion_id"),
        (["L,a,nv,,,,", "L,a,nv,,,,"], r"line 3 \(image 'a'\) repeats an earlier image"),
        (["L,,nv,,,,"], r"line 2 \(image ''\) has no image id"),
    ],
)
def test_a_broken_table_is_refused_with_file_and_line(rows, message, tmp_path):
    _write(tmp_path, rows)
    with pytest.raises(UserError, match=rf"{METADATA}, {message}.*dataverse|{METADATA}, {message}.*doi") as error:
        Ham10000(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{METADATA} is missing; get it from https://doi"):
        Ham10000(tmp_path)
    with pytest.raises(UserError, match="ham10000 needs its folder"):
        Ham10000()


@pytest.mark.skipif(not (DATA / "isic2019-ham").is_dir(), reason="the HAM10000 images are not here")
def test_the_real_folder():
    source = Ham10000(DATA / "isic2019-ham")
    counts = dict(zip(source.class_names, np.bincount(source.labels).tolist(), strict=True))
    assert counts == dict(source.expected_counts) and len(source.ids) == 10015
    assert source.present.all() and source.describe_missing() is None
    assert len(np.unique(source.lesions)) == 7470
    assert source.read(0, 64).std() > 0
