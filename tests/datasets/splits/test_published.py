"""The authors' split files: read without a general unpickler, and checked."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from exploit import Exploit
from real_data import DATA

from ltbench.datasets.splits.published import (
    check_label_dictionary,
    part_path,
    positions_of,
    published_split,
    read_label_dictionary,
    read_names,
)
from ltbench.errors import UserError

SPLITS = DATA / "flexsampling-splits"
real = pytest.mark.skipif(not SPLITS.is_dir(), reason="the authors' split files are not here")

MAGIC = b"\x93NUMPY\x01\x00"


def _header(shape="()", descr="'|O'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return MAGIC + len(text).to_bytes(2, "little") + text


def _save_names(folder, **parts):
    for name, images in parts.items():
        np.save(folder / f"{name}.npy", np.array(images))


def _save_dictionary(path, labels):
    np.save(path, np.array(labels, dtype=object), allow_pickle=True)
    return path


def test_names_are_read_and_suffixes_dropped(tmp_path):
    _save_names(tmp_path, train_100=["a.jpg", "b_downsampled.jpg"], val_100=["c.JPEG"], test_100=["d.v2.png"])
    assert read_names(tmp_path / "train_100.npy").tolist() == ["a.jpg", "b_downsampled.jpg"]
    split = published_split(tmp_path, 100.0)
    assert {part: names.tolist() for part, names in split.items()} == {
        "train": ["a", "b_downsampled"],
        "val": ["c"],
        "test": ["d.v2"],
    }


def test_a_folder_for_one_ratio_has_no_ratio_in_its_names(tmp_path):
    _save_names(tmp_path, train=["a.jpg"], val=["b.jpg"], test=["c.jpg"])
    assert published_split(tmp_path, "natural")["test"].tolist() == ["c"]
    with pytest.raises(UserError, match=r"has one split, .*; use --ratio natural, not 1000"):
        published_split(tmp_path, 1000.0)


def test_missing_files_are_named_with_the_ratios_there_are(tmp_path):
    with pytest.raises(UserError, match=r"lacks train\.npy"):
        part_path(tmp_path, "train", 100)
    _save_names(tmp_path, train_500=["a.jpg"], train_100=["a.jpg"], train=["a.jpg"])
    with pytest.raises(UserError, match="no split of ratio 200; it has: 100, 500"):
        part_path(tmp_path, "train", 200)
    with pytest.raises(UserError, match=r"lacks val_100\.npy"):
        published_split(tmp_path, 100)
    with pytest.raises(UserError, match="does not exist"):
        part_path(tmp_path / "absent", "train", 100)


def test_a_name_listed_twice_is_refused(tmp_path):
    _save_names(tmp_path, train_100=["a.jpg", "b.jpg", "a.png"])
    with pytest.raises(UserError, match=r"train_100\.npy lists a twice"):
        published_split(tmp_path, 100)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        MAGIC,
        _header("(3,)", "'<U8'") + b"short",
        _header("(1,)", "'<U1'") + b"\xff\xff\xff\xff",  # no character
        _header("(1000000000000000,)", "'<U8'"),
        _header("(2,", "'<U8'"),
        _header("(2,)", "'<i4'") + bytes(8),
        _header("(0,)", "'<U8'"),
        _header("(1, 1)", "'<U1'") + b"a\0\0\0",
        b"PK\x03\x04 a zip archive, or so it says",
    ],
)
def test_a_damaged_file_of_names_is_refused(content, tmp_path):
    (tmp_path / "names.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"names\.npy"):
        read_names(tmp_path / "names.npy")


def test_nothing_in_a_hostile_file_runs(tmp_path):
    trace = tmp_path / "trace"
    names = tmp_path / "names.npy"
    np.save(names, np.array(["a", Exploit(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"names\.npy: .*allow_pickle=False"):
        read_names(names)
    for labels in ({"a": Exploit(trace)}, Exploit(trace), {Exploit(trace): 0}):
        path = _save_dictionary(tmp_path / "dic.npy", labels)
        with pytest.raises(UserError, match=r"refused to load .*dic\.npy: it asks for"):
            read_label_dictionary(path)
    assert not trace.exists()
    np.load(names, allow_pickle=True)  # the file is what the test takes it for
    assert trace.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"garbage",
        pickle.dumps({"a": 0}),  # not an array
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile.x\x93.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n)I0\nI0\nNtb.",  # its state holds no list
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"Pid\n.",  # a persistent id
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a memo index that would take 32 GB
        b"\x80\x04\x82\x01.",  # an extension code
        b"(" * 100_000 + b".",
    ],
)
def test_a_damaged_dictionary_is_refused(pickled, tmp_path):
    path = tmp_path / "dic.npy"
    path.write_bytes(_header() + pickled)
    with pytest.raises(UserError, match=r"refused to load .*dic\.npy") as error:
        read_label_dictionary(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", MAGIC, MAGIC.replace(b"\x01", b"\x03"), _header("(1,)"), _header("()", "'<i8'")]
)
def test_a_file_that_is_no_object_array_is_refused(content, tmp_path):
    (tmp_path / "dic.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"label dictionary .*dic\.npy"):
        read_label_dictionary(tmp_path / "dic.npy")
    with pytest.raises(UserError, match=r"absent\.npy"):
        read_label_dictionary(tmp_path / "absent.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "no dictionary"),
        (["a"], "no dictionary"),
        ({"a": -1}, "'a': -1"),
        ({"a": True}, "str with a bool"),
        ({"a": 1.0}, "str with a float"),
        ({1: 1}, "int with a int"),
        ({"a": [1]}, "str with a list"),
    ],
)
def test_entries_that_are_no_labels_are_refused(labels, message, tmp_path):
    path = tmp_path / "dic.npy"
    array = np.empty((), dtype=object)
    array[()] = labels
    np.save(path, array, allow_pickle=True)
    with pytest.raises(UserError, match=rf"dic\.npy holds .*{message}"):
        read_label_dictionary(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_dictionary_is_read_whatever_the_protocol(protocol, tmp_path):
    path = tmp_path / "dic.npy"
    for labels in ({"a.jpg": 0, "ü.jpg": 70_000}, {np.str_("a.jpg"): 3, np.array(["bb.jpg"], dtype=">U6")[0]: 1}):
        path.write_bytes(_header() + pickle.dumps(np.array(labels, dtype=object), protocol=protocol))
        found = read_label_dictionary(path)
        assert found == labels and all(type(name) is str for name in found)


def test_names_and_labels_are_checked_against_the_ground_truth(tmp_path):
    ids, labels = np.array(["a", "b", "c"]), np.array([0, 1, 1])
    assert positions_of(np.array(["c", "a"]), ids, Path("train.npy")).tolist() == [2, 0]
    with pytest.raises(UserError, match=r"train\.npy names 2 image\(s\) that the labels lack \(first: x\)"):
        positions_of(np.array(["a", "x", "y"]), ids, Path("train.npy"))
    path = _save_dictionary(tmp_path / "dic.npy", {"a.jpg": 0, "b.jpg": 1, "elsewhere.jpg": 5})
    check_label_dictionary(path, ids, labels, ("NV", "MEL"))
    _save_dictionary(path, {"a.jpg": 0, "b.jpg": 0, "c.jpg": 0})
    with pytest.raises(UserError, match=r"dic\.npy gives b the class id 0, the ground truth 1 \(MEL\)"):
        check_label_dictionary(path, ids, labels, ("NV", "MEL"))


@real
def test_the_published_dictionaries_are_read():
    labels = read_label_dictionary(SPLITS / "8-class" / "dic.npy")
    counts = np.bincount(list(labels.values()))
    assert counts.tolist() == [12875, 4522, 3323, 2624, 867, 628, 253, 239]
    labels = read_label_dictionary(SPLITS / "14-class" / "dic.npy")
    split = published_split(SPLITS / "14-class", "natural")
    assert [len(split[part]) for part in ("train", "val", "test")] == [17508, 2503, 5009]
    assert {f"{name}.jpg" for part in split.values() for name in part.tolist()} <= set(labels)
    assert set(labels.values()) == set(range(14))
