"""The manifest: order, digest, reading back, and the overlap between parts."""

import hashlib
import os
from types import SimpleNamespace

import numpy as np
import pytest

from ltbench.datasets.splits.manifest import COLUMNS, Manifest, overlap
from ltbench.datasets.tables import read_table
from ltbench.errors import UserError


@pytest.fixture
def manifest():
    source = SimpleNamespace(
        ids=np.array(["d", "c", "b", "a", "f", "e", "unused"]),
        labels=np.array([0, 1, 0, 1, 0, 1, 0]),
        class_names=("NA", "x,y"),
        lesions=np.array(["l1", "l2", "b", "l2", "l1", "l3", "l1"]),
    )
    return Manifest.from_source(source, {"test": np.array([4, 3]), "val": np.array([5]), "train": np.array([0, 1, 2])})


def test_rows_parts_and_class_counts(manifest):
    assert manifest.ids.tolist() == ["b", "c", "d", "e", "a", "f"]
    assert manifest.parts.tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert manifest.labels.tolist() == [0, 1, 0, 1, 1, 0] and manifest.labels.dtype == np.int64
    assert manifest.lesions.tolist() == ["b", "l2", "l1", "l3", "l2", "l1"]
    ids, labels = manifest.part("test")
    assert ids.tolist() == ["a", "f"] and labels.tolist() == [1, 0]
    labels[0] = 0  # a copy, which a caller may change
    assert manifest.class_counts("train").tolist() == [2, 1]
    assert manifest.class_counts("val", 3).tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="unknown part 'tset'; did you mean 'test'"):
        manifest.part("tset")
    with pytest.raises(ValueError, match="read-only"):
        manifest.labels[0] = 1


def test_digest_is_that_of_the_file_and_a_change_fails_the_check(manifest, tmp_path):
    path = tmp_path / "split.csv"
    manifest.write(path)
    expected = (
        'id,label,class,lesion,part\nb,0,NA,b,train\nc,1,"x,y",l2,train\nd,0,NA,l1,train\n'
        'e,1,"x,y",l3,val\na,1,"x,y",l2,test\nf,0,NA,l1,test\n'
    )
    assert path.read_bytes() == expected.encode()
    assert manifest.digest == hashlib.sha256(expected.encode()).hexdigest()
    for again in (Manifest.read(path), Manifest.verify(path, manifest.digest)):
        assert again.digest == manifest.digest
        assert all((getattr(again, name) == getattr(manifest, name)).all() for name in ("ids", "classes", "parts"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"]
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes())
    assert Manifest.verify(path, manifest.digest) is Manifest.verify(path, manifest.digest)
    assert Manifest.verify(path, manifest.digest) is Manifest.verify(copy, manifest.digest)
    path.write_bytes(path.read_bytes().replace(b"d,0", b"d,1"))
    with pytest.raises(UserError, match=r"split\.csv was changed"):
        Manifest.verify(path, manifest.digest)
    with pytest.raises(UserError, match="cannot read"):
        Manifest.verify(tmp_path / "absent.csv", manifest.digest)
    os.mkfifo(tmp_path / "pipe.csv")
    for read in (Manifest.read, lambda path: Manifest.verify(path, manifest.digest)):
        with pytest.raises(UserError, match="is not a regular file"):
            read(tmp_path / "pipe.csv")


def test_a_failed_write_keeps_the_old_file(manifest, tmp_path, monkeypatch):
    path = tmp_path / "split.csv"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"split\.csv: No space left"):
        manifest.write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["split.csv"] and path.read_text() == "old"
    with pytest.raises(UserError, match="cannot write"):
        manifest.write(tmp_path / "absent" / "split.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV table"),
        ("id,label,class,lesion,part\n", "lists no image"),
        ("id,label,class,part\na,0,NV,train\n", r"lacks the column\(s\) lesion"),
        ("id;label;class;lesion;part\na;0;NV;a;train\n", "; separate fields by commas"),
        ("id\tlabel\tclass\tlesion\tpart\na\t0\tNV\ta\ttrain\n", "; separate fields by commas"),
        ("id,label,class,lesion,part\na,0,NV,a,train\nb,0,NV,b,dev\n", "line 3 .* unknown part"),
        ("id,label,class,lesion,part\na,0,NV,a,train\n\nb,-1,NV,b,val\n", "line 4 .* not a class id"),
        ("id,label,class,lesion,part\na,1.5,NV,a,train\n", "line 2 .* not a class id"),
        ("id,label,class,lesion,part\na,1e300,NV,a,train\n", "line 2 .* not a class id"),
        ("id,label,class,lesion,part\na,0,NV,a,train\na,0,NV,a,test\n", "line 3 .* repeats the id"),
        ("id,label,class,lesion,part\na,0,NV,a,train\nb,0,MEL,b,test\n", "line 3 .* names a class otherwise"),
        ("id,label,class,lesion,part\n,0,NV,a,train\n", "line 2 .* has no id"),
        ("id,label,class,lesion,part\na,0,NV\n", "line 2 .* unknown part"),
        ("id,label,class,lesion,part\na,0,NV,a,train,more\n", "line 2 has more fields than the header"),
        ("id,label,class,lesion,part\na,0,NV,a,train\nb,0,NV,b,val,more\n", "line 3 has more fields than the header"),
        ('id,label,class,lesion,part\n"a\n\na",0,NV,a,train\nb,x,NV,b,val\n', "line 5 .* not a class id"),
        ('id,label,class,lesion,part\r\n\r\n"a\r\na",x,NV,a,train\r\n', "line 3 .* not a class id"),
        ('id,label,class,lesion,part\na,0,"NV\n",a,train\nb,0,"NV,b,val\nc,0,NV,c,val\n', "not a CSV table: line 4: "),
        ("id,label,class,lesion,part,label\na,0,NV,a,train,1\n", "has the column 'label' more than once"),
        ("id,label,class,lesion,part, label \na,0,NV,a,train,1\n", "has the column 'label' more than once"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_line(text, message, tmp_path):
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"broken\.csv.*{message}") as error:
        Manifest.read(path)
    assert "\n" not in str(error.value)


def test_tables_are_text_indexed_by_line(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeff id ,,ü,\r\n1,x,NA,\r\n\r\n,,,,,,\r\n"a\nb"\r\n2,,"c,""d"""'.encode())
    table = read_table(path, ("id", "ü"))
    assert table.columns.tolist() == ["id", "ü"] and table.index.tolist() == [2, 5, 7]
    assert table["id"].tolist() == ["1", "a\nb", "2"] and table["ü"].tolist() == ["NA", "", 'c,"d"']
    (tmp_path / "broken.csv").write_bytes(bytes(range(256)) * 4)
    for path in (tmp_path / "broken.csv", tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(UserError, match=path.name):
            read_table(path, COLUMNS)


def test_overlap_counts_images_and_lesions(manifest):
    found = overlap(manifest)
    assert found.as_dict() == {
        "train/test": {"images": 0, "lesion_images": 2, "total": 2},
        "train/val": {"images": 0, "lesion_images": 0, "total": 1},
        "val/test": {"images": 0, "lesion_images": 0, "total": 2},
    }
    assert found.lines()[0].endswith("no image in both; 2 of 2 test images show a lesion that train shows too")
    parts = np.array(["train", "test", "test"])
    leaky = Manifest(np.array(["a", "a", "b"]), np.zeros(3), np.array(["x"] * 3), np.array(["a", "a", "b"]), parts)
    assert overlap(leaky).as_dict()["train/test"] == {"images": 1, "lesion_images": 1, "total": 2}
