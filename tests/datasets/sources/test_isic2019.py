"""ISIC-2019-LT: tables, images and what may be wrong with either."""

import numpy as np
import pytest
from PIL import Image
from real_data import DATA

from ltbench.datasets import registry
from ltbench.datasets.sources.isic2019 import GROUND_TRUTH, IMAGE_FOLDER, METADATA, Isic2019
from ltbench.errors import UserError

HEADER = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
CLASSES = HEADER.split(",")[1:]
IDS = ["ISIC_0000000", "ISIC_0000001_downsampled", "ISIC_0000002", "ISIC_0000003"]
DIAGNOSES = ["NV", "MEL", "DF", "SCC"]


def _row(image, *diagnoses):
    return ",".join([image, *("1.0" if name in diagnoses else "0.0" for name in CLASSES)])


def _write_tables(root):
    root.mkdir(exist_ok=True)
    rows = [_row(image, name) for image, name in zip(IDS, DIAGNOSES, strict=True)]
    (root / GROUND_TRUTH).write_text("\n".join([HEADER, *rows]) + "\n")
    rows = [
        f"{IDS[0]},55.0,head/neck,HAM_1,male",
        f"{IDS[1]},,,nan,",
        f"{IDS[2]} ,30.0,,HAM_1 ,female",
    ]  # none for the last
    header = "image,age_approx,anatom_site_general,lesion_id,sex"
    (root / METADATA).write_text("\n".join([header, *rows]) + "\n")


def _write_images(folder, names):
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.new("RGB", (80, 60), (200, 100, 40 * index)).save(folder / name)


@pytest.fixture
def root(tmp_path):
    _write_tables(tmp_path)
    _write_images(tmp_path / IMAGE_FOLDER, [f"{image}.jpg" for image in IDS])
    return tmp_path


def test_labels_are_in_the_authors_order_and_lesions_fall_back_on_the_image(root):
    source = registry.get("isic2019")(root)
    assert source.class_names == ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "VASC", "DF")
    assert source.ids.tolist() == IDS
    assert source.labels.tolist() == [0, 1, 7, 5] and source.labels.dtype == np.int64
    assert source.lesions.tolist() == ["HAM_1", IDS[1], "HAM_1", IDS[3]]
    assert source.present.tolist() == [True] * 4 and source.present.dtype == bool
    assert source.describe_missing() is None
    path = root / GROUND_TRUTH
    lines = path.read_text().replace("1.0", "1").replace("0.0", "0").replace(",UNK", "").splitlines()
    lines = [lines[0], *(line.rpartition(",")[0] for line in lines[1:])]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, "", ""]).encode())
    assert Isic2019(root).labels.tolist() == [0, 1, 7, 5]


@pytest.mark.parametrize("folder", [".", "images_384", IMAGE_FOLDER, f"{IMAGE_FOLDER}/{IMAGE_FOLDER}"])
def test_images_are_found_in_any_layout_and_with_any_suffix(folder, tmp_path):
    _write_tables(tmp_path)
    (tmp_path / IMAGE_FOLDER).mkdir()
    (tmp_path / "notes").mkdir()
    _write_images(tmp_path / folder, [f"{IDS[0]}.JPG", f"{IDS[1]}.jpeg", "ISIC_0000001.jpg", f"{IDS[3]}.png"])
    (tmp_path / folder / f"{IDS[2]}.txt").write_text("no image")
    source = Isic2019(tmp_path)
    assert source.present.tolist() == [True, True, False, True]
    assert source.describe_missing() == f"1 of 4 images missing under {tmp_path} (first: ISIC_0000002.jpg)"
    assert source.read(3, 8).shape == (3, 8, 8)
    for fails in (lambda: source.read(2, 8), lambda: source.fingerprints(np.array([2]))):
        with pytest.raises(UserError, match=r"ISIC_0000002\.jpg is missing"):
            fails()


def test_no_images_at_all_is_no_error_before_they_are_read(tmp_path):
    _write_tables(tmp_path)
    source = Isic2019(tmp_path)
    assert not source.present.any() and source.describe_missing().startswith("4 of 4 images missing")


def test_missing_folders_and_tables_are_named(root):
    with pytest.raises(UserError, match="--data-root"):
        Isic2019()
    with pytest.raises(UserError, match="absent does not exist"):
        Isic2019(root / "absent")
    for name in (METADATA, GROUND_TRUTH):
        (root / name).unlink()
        with pytest.raises(UserError, match=f"{name} is missing"):
            Isic2019(root)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER.replace(",VASC", ""), "a,1,0,0,0,0,0,0,0"], r"lacks the column\(s\) VASC"),
        ([HEADER + ",NEW", _row("a", "NV") + ",0"], "unknown class 'NEW'"),
        ([HEADER, _row("a", "NV"), _row("b", "NV"), _row("a", "NV")], r"line 4 \(image 'a'\) repeats"),
        ([HEADER, _row("a", "NV"), "", _row("b")], r"line 4 \(image 'b'\) has no class"),
        ([HEADER, _row("a", "NV", "MEL")], r"line 2 \(image 'a'\) has more than one class"),
        ([HEADER, _row("a", "NV"), _row("b", "UNK")], r"line 3 \(image 'b'\) has the class UNK"),
        ([HEADER, _row("a", "NV").replace("1.0", "yes")], r"line 2 \(image 'a'\) has a mark other than 0 and 1"),
        ([HEADER, _row("a", "NV").replace("1.0", "0.5")], r"line 2 \(image 'a'\) has a mark other than 0 and 1"),
        ([HEADER, "a,0,1"], r"line 2 \(image 'a'\) has a mark other than 0 and 1"),
        ([HEADER, _row("", "NV")], "line 2 .* has no image id"),
        ([HEADER, _row("a", "NV"), _row("b", "NV") + ",0"], "not a CSV table.* line 3"),
        ([HEADER], "lists no image"),
        ([], "not a CSV table"),
    ],
)
def test_a_broken_ground_truth_is_refused_with_file_and_line(lines, message, root):
    (root / GROUND_TRUTH).write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"{GROUND_TRUTH}.*{message}") as error:
        Isic2019(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,sex\na,male\n", r"lacks the column\(s\) lesion_id"),
        ("image,lesion_id\na,l1\na,l2\n", r"line 3 \(image 'a'\) repeats"),
        ("", "not a CSV table"),
        (f"image,lesion_id\n{IDS[0]},a\n{IDS[1]}.jpg,b\n{IDS[2]}.jpg,c\n", f"'{IDS[1]}.jpg'.*'{IDS[1]}'"),
    ],
)
def test_broken_metadata_are_refused(text, message, root):
    (root / METADATA).write_text(text)
    with pytest.raises(UserError, match=rf"{METADATA}.*{message}"):
        Isic2019(root)


@pytest.mark.skipif(not (DATA / "isic2019-ham").is_dir(), reason="the ISIC 2019 folder is not here")
def test_the_official_tables():
    source = Isic2019(DATA / "isic2019-ham")
    assert np.bincount(source.labels).tolist() == [12875, 4522, 3323, 2624, 867, 628, 253, 239]
    assert np.bincount(source.labels[source.present]).tolist() == [6705, 1113, 514, 1099, 130, 197, 142, 115]
    assert source.describe_missing().startswith("15316 of 25331 images missing")
    assert (source.lesions == source.ids).sum() == 2084
    assert len(np.unique(source.lesions)) == 11847 + 2084
    first = int(source.present.argmax())
    assert source.read(first, 64).std() > 0 and source.fingerprints(np.array([first])).all()
