"""A user's own table: what it may hold, and every way in which it may be wrong."""

import hashlib
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from ltbench.datasets import registry
from ltbench.datasets.checks.image_facts import examine
from ltbench.datasets.loading import load
from ltbench.datasets.sources.csv import CsvTable
from ltbench.errors import UserError

FILES = ["a.png", "sub/b.PNG", "sub/größe, 中.png", "d e.png"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "sub").mkdir()
    for index, name in enumerate(FILES):
        Image.new("RGB", (9, 6), (40 * index, 50, 60)).save(tmp_path / name)
    return tmp_path


def _write(root, *lines, name="mine.csv"):
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CsvTable(root)


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_least_that_a_table_holds(root):
    source = _write(root, "image,label", "a.png,x", "sub/b.PNG,benign, or so".replace(",b", ',"b') + '"', "d e.png,x")
    assert registry.get("csv") is CsvTable and registry.details("csv")["Licence"] == "yours."
    assert source.class_names == ("x", "benign, or so") and source.labels.tolist() == [0, 1, 0]
    assert source.ids.tolist() == ["a.png", "sub/b.PNG", "d e.png"] and source.present.all()
    assert source.lesions.tolist() == source.ids.tolist() and not source.has_lesion_ids
    assert source.patients is None and source.parts is None
    assert (source.default_split, source.default_ratio, source.licence) == ("paper", "natural", "yours")
    assert "mine.csv" in source.title
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(2, 4).shape == (3, 4, 4) and copy.fingerprints(np.array([0, 1])).all()


def test_patients_are_the_groups_where_there_are_no_others(root):
    rows = ["image,label,patient", "a.png,x,p1", "sub/b.PNG,y,p1", "d e.png,x,"]
    source = _write(root, *rows)
    assert source.lesions.tolist() == ["p1", "p1", "d e.png"] and source.has_lesion_ids
    assert (source.default_split, source.group_name) == ("lesion", "patient")
    alone = CsvTable(root, group="")
    assert not alone.has_lesion_ids and alone.default_split == "paper" and alone.patients.tolist() == ["p1", "p1", ""]


def test_another_file_than_the_table_lists_is_found_without_training(root):
    rows = ["image,label,sha256", f"a.png,x,{'0' * 64}", f"d e.png,y,{_sha256(root / 'd e.png')}"]
    source = _write(root, *rows)
    facts = examine(source, np.array([0, 1]))
    assert "SHA-256" in facts.errors[0] and facts.errors[1] == ""
    with pytest.raises(UserError, match="SHA-256"):
        source.read(0, 4)


def test_patients_in_two_parts_are_named_where_others_group_the_images(tmp_path):
    for number in range(24):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{'xy'[number % 2]},lesion{number // 2},patient{number % 3}" for number in range(24)]
    _write(tmp_path, "image,label,group,patient", *rows)
    (note,) = [note for note in load("csv", root=tmp_path, image_size=4).notes if "patient" in note]
    assert note == "3 of 3 patients of test have images in training, too"
    _write(tmp_path, "image,label,patient", *(f"{n}.png,{'xy'[n % 2]},p{n // 2}" for n in range(24)))
    assert not [note for note in load("csv", root=tmp_path, image_size=4).notes if "of test" in note]


def test_all_that_a_table_may_hold(root):
    lines = ["part,group,image,label,sha256,patient,note"]
    for part, group, name in (
        ("Training", "g1", FILES[0]),
        ("val", "", FILES[1]),
        ("test_set", "g1", f'"{FILES[2]}"'),
    ):
        digest = _sha256(root / name.strip('"')).upper() if part != "val" else ""
        lines.append(f"{part},{group},{name},{'yx'[part == 'val']},{digest},p{len(lines)},")
    source = _write(root, *lines)
    assert source.parts.tolist() == ["train", "val", "test"] and source.patients.tolist() == ["p1", "p2", "p3"]
    assert source.lesions.tolist() == ["g1", "sub/b.PNG", "g1"] and source.has_lesion_ids
    assert source.default_split == "official"
    assert all(source.read(position, 4).shape == (3, 4, 4) for position in range(3))
    assert CsvTable(root, part="").default_split == "lesion"
    assert CsvTable(root, part="", group="").default_split == "paper"


def test_spellings_are_named_and_joined_if_asked_for(root):
    rows = ["a.png,Nevus,7,None", "sub/b.PNG,nevus ,7.0,P 1", '"sub/größe, 中.png",1,#N/A,p  1', "d e.png,1.0,NA,"]
    source = _write(root, "image,label,group,patient", *rows)
    assert len(source.class_names) == 4 and source.lesions.tolist() == ["7", "7.0", *source.ids[2:]]
    assert source.patients.tolist() == ["", "P 1", "p  1", ""]
    for note, said in zip(source.notes, ("'nevus' and 'Nevus'", "'7.0' and '7'", "'p  1' and 'P 1'"), strict=True):
        assert said in note
    with pytest.raises(UserError, match=r"class '1' has 1 image; .*'nevus' and 'Nevus'.*merge_labels=true"):
        load("csv", root=root, allow_missing=True)
    joined = CsvTable(root, merge_labels="true")
    assert joined.class_names == ("1", "Nevus") and joined.lesions.tolist()[:2] == ["7", "7"]
    assert joined.patients.tolist() == ["", "P 1", "P 1", ""]
    assert CsvTable(root, merge_labels="true", classes="nevus,1.0").labels.tolist() == [0, 0, 1, 1]


def test_columns_and_folders_may_have_other_names(root):
    (root / "tables").mkdir()
    _write(root, "image,label", "a.png,x", "d e.png,y", name="decoy.csv")
    lines = ["File Name,Diagnosis,Case,Fold,Person", "b.PNG, x ,k,train,p", '"größe, 中.png",y,k,,']
    (root / "tables" / "t.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    columns = {"image": "File Name", "label": "Diagnosis", "group": "Case", "part": "Fold", "patient": "Person"}
    source = CsvTable(root, table="tables/t.csv", images="../sub", classes="y, x", **columns)
    assert source.class_names == ("y", "x") and source.labels.tolist() == [1, 0]
    assert source.lesions.tolist() == ["k", "k"] and source.parts.tolist() == ["train", ""]
    assert source.patients.tolist() == ["p", ""] and source.present.all()
    assert CsvTable(None, table=root / "decoy.csv").ids.tolist() == ["a.png", "d e.png"]


def test_paths_links_and_the_order_of_classes(root):
    source = _write(root, "image,label", ".//a.png,x", "sub\\b.PNG,NaN")
    assert "1 image has a label that may mean none (first: 'NaN')" in source.notes[0]
    assert source.ids.tolist() == ["a.png", "sub/b.PNG"] and source.present.all()
    source = _write(root, "image,label", "a.png,z", "sub/b.PNG,y", "d e.png,w", "none.png,w")
    assert source.class_names == ("w", "y", "z")
    (root / "link.png").symlink_to(root / "a.png")
    assert _write(root, "image,label", "link.png,x", "d e.png,y").read(0, 4).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,class", "a.png,x"], r" lacks the column 'label'; it has: image, class; .*label=COLUMN"),
        (["label", "x"], r" lacks the column 'image'"),
        (["image;label", "a.png;1,5"], r" is not a CSV table: .*'image;label'.* by commas"),
        (['"image"\t"label"', '"a.png"\t"x"'], r" is not a CSV table: .* by commas"),
        (["image|label", "a.png|x"], r" is not a CSV table: .* by commas"),
        (["image;label;note, more", "a.png;x;1, 2"], r" is not a CSV table: .* by commas"),
        (["image,label"], r" lists no image"),
        (["image,label", "a.png,x", "d e.png,x"], r" has only the class 'x'"),
        (["image,label", "a.png,x", "d e.png,y", "./a.png,y"], r", line 4 \(image './a.png'\) repeats an earlier"),
        (["image,label", "a.png,x", "d e.png,"], r", line 3 \(image 'd e.png'\) has no label"),
        (["image,label", "a.png,x", ",y"], r", line 3 \(image ''\) has no image"),
        (["image,label,part", "a.png,x,train", "d e.png,y,left arm"], r", line 3 .* unknown part 'left arm'; .*part="),
        (["image,label,sha256", "a.png,x,", "d e.png,y,abc"], r", line 3 .* SHA-256 that is not 64 hexadecimal"),
        (["image,label", "a.png,x", "../a.png,y"], r", line 3 \(image '../a.png'\) is not a path within"),
        (["image,label", "a.png,x", "sub/../../x.png,y"], r", line 3 .* is not a path within"),
        (["image,label", "a.png,x", "/etc/passwd,y"], r", line 3 \(image '/etc/passwd'\) is not a path within"),
        (["image,label", "a.png,x", "C:\\scan.png,y"], r", line 3 .* is not a path within"),
        (["image,label", "a.png,x", "link.png,y"], r", line 3 \(image 'link.png'\) leads out of .* by a link"),
        (["image,label", "a.png,x", "away/a.png,y"], r", line 3 \(image 'away/a.png'\) leads out of .* by a link"),
        (["image,label", "a.png,x", "b\0.png,y"], r".* line 3.* (has characters that are not text|contains NUL)"),
        (["image,label", "a.png,x", '"b\n.png",y'], r", line 3 .* has characters that are not text"),
        (["image,label", "a.png,x", 'd e.png,"y\nz"'], r", line 3 .* has a label of several lines"),
        (["image,label,group", "a.png,x,", 'd e.png,y,"1\n2"'], r", line 3 .* has a group of several lines"),
        (["image,label,patient", "a.png,x,", 'd e.png,y,"1\n2"'], r", line 3 .* has a patient of several lines"),
        (["image,label,note", 'a.png,x,"1\n2\n3"', "d e.png,,"], r", line 5 \(image 'd e.png'\) has no label"),
        (["image,label", "a.png,x", "d e.png,y,z"], r" .* line 3 has more fields than the header \(3, not 2\)"),
        (["image,label, label", "a.png,x,y", "d e.png,y,x"], r" has the column 'label' more than once"),
        (["image,label,image", "a.png,x,d e.png", "d e.png,y,a.png"], r" has the column 'image' more than once"),
        ([], r" is not a CSV table"),
    ],
)
def test_a_broken_table_is_refused_with_file_and_line(lines, message, root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    Image.new("RGB", (5, 5)).save(outside / "a.png")
    (root / "link.png").symlink_to(outside / "a.png")
    (root / "away").symlink_to(outside)
    with pytest.raises(UserError, match=rf"mine\.csv{message}") as error:
        _write(root, *lines)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("x", r"mine\.csv, line 3 \(image 'd e\.png'\) has the unknown label 'y'; classes= knows: x"),
        ("x,y,z", r"mine\.csv has no image of the class 'z'"),
        ("x,y,x", "classes= repeats 'x'"),
        ("x,,y", "classes= has a name that is empty"),
    ],
)
def test_classes_that_do_not_fit_are_refused(classes, message, root):
    _write(root, "image,label", "a.png,x", "d e.png,y")
    with pytest.raises(UserError, match=message):
        CsvTable(root, classes=classes)
    assert CsvTable(root, classes=["y", "x"]).class_names == ("y", "x")


def test_folders_and_tables_that_are_not_there_are_named(root):
    with pytest.raises(UserError, match=r"has no \.csv table; name yours with --dataset-option table=FILE"):
        CsvTable(root)
    _write(root, "image,label", "a.png,x", "d e.png,y")
    (root / ".hidden.csv").touch()
    CsvTable(root)
    (root / "other.CSV").touch()
    with pytest.raises(UserError, match=r"several tables \(mine\.csv, other\.CSV\)"):
        CsvTable(root)
    with pytest.raises(UserError, match=r"the table .*absent\.csv does not exist"):
        CsvTable(root, table="absent.csv")
    with pytest.raises(UserError, match=r"the image folder .*absent does not exist"):
        CsvTable(root, table="mine.csv", images="absent")
    with pytest.raises(UserError, match=r"lacks the column 'Case'.*group=COLUMN"):
        CsvTable(root, table="mine.csv", group="Case")
    with pytest.raises(UserError, match="--data-root"):
        CsvTable()
    with pytest.raises(UserError, match="absent does not exist"):
        CsvTable(root / "absent")


def test_changed_bytes_and_checksums_make_an_image_be_read_again(root):
    digests = [_sha256(root / name) for name in ("a.png", "d e.png")]
    source = _write(root, "image,label,sha256", f"a.png,x,{digests[0]}", f"d e.png,y,{digests[1]}")
    before = source.fingerprints(np.array([0, 1]))
    content = bytearray((root / "d e.png").read_bytes())
    content[len(content) // 2] ^= 1
    (root / "d e.png").write_bytes(content)
    os.utime(root / "d e.png", ns=(0, 1))
    assert (source.fingerprints(np.array([0, 1])) != before).tolist() == [False, True]
    assert source.read(0, 4).shape == (3, 4, 4)
    with pytest.raises(UserError, match=r"d e\.png \(mine\.csv, line 3\) has the SHA-256 [0-9a-f]{64}, not ") as error:
        source.read(1, 4)
    assert "\n" not in str(error.value)
    lines = ["image,label,sha256", "a.png,x,{}", "d e.png,y,"]
    stamps = [
        _write(root, *(line.format(digest) for line in lines)).fingerprints(np.arange(2)) for digest in ("", "0" * 64)
    ]
    assert (stamps[0] == stamps[1]).tolist() == [False, True]


def test_missing_and_corrupt_images_are_named_with_their_line(root):
    (root / "bad.png").write_bytes(b"no image")
    (root / "folder.png").mkdir()
    digest = "0" * 64
    rows = ["gone.png,x,", "bad.png,y,", f"lost.png,y,{digest}", "folder.png,y,", "a.png,y,"]
    source = _write(root, "image,label,sha256", *rows)
    assert source.present.tolist() == [False, True, False, False, True]
    first = "(first: gone.png (mine.csv, line 2))"
    assert source.describe_missing() == f"3 of 5 images missing under {root} {first}"
    for position, message in (
        (0, r"gone\.png \(mine\.csv, line 2\) is missing; restore the file"),
        (1, r"cannot read the image .*bad\.png \(mine\.csv, line 3\): cannot identify"),
        (2, r"lost\.png \(mine\.csv, line 4\) is missing"),
        (3, r"folder\.png \(mine\.csv, line 5\) is missing"),
    ):
        with pytest.raises(UserError, match=message):
            source.read(position, 4)


@pytest.mark.parametrize("change", ["label", "row", "group"])
def test_results_of_a_changed_table_never_meet_those_of_the_old_one(change, root):
    lines = ["image,label,group", "a.png,x,1", "sub/b.PNG,y,2", "d e.png,y,3"]
    before = _write(root, *lines).variant
    assert _write(root, *lines).variant == before and before.startswith("mine-")
    changed = {
        "label": [lines[0], "a.png,y,1", "sub/b.PNG,x,2", lines[3]],
        "row": lines[:3],
        "group": [*lines[:3], "d e.png,y,2"],
    }
    assert _write(root, *changed[change]).variant != before
