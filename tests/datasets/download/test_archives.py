"""Unpacking: what is good comes out whole, what is hostile or damaged leaves nothing behind."""

import os
import signal
import stat
import subprocess
import sys
import zipfile

import pytest

from ltbench.datasets.download import archives
from ltbench.datasets.download.archives import RECORD, extract, is_unpacked
from ltbench.errors import UserError

FILES = {
    "a.jpg": b"one",
    "deep/er/b.jpg": b"two" * 1000,
    "Melanom-\u00e4\u00df/\u76ae\u80a4.jpg": b"three",
    "empty.txt": b"",
}


def make_zip(path, entries, **options):
    """Entries are (name or ZipInfo, bytes); a name may come twice."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD
    }


def assert_nothing_written(folder, archive):
    """Only the archive and the lock are beside where the folder would be, and nothing outside it."""
    names = {path.name for path in folder.parent.iterdir()}
    assert names <= {archive.name}
    assert {path.name for path in folder.parent.parent.iterdir()} == {folder.parent.name}


def refused(archive, message):
    folder = archive.with_name("out")
    with pytest.raises(UserError, match=message) as caught:
        extract(archive, folder, quiet=True)
    assert "\n" not in str(caught.value)
    assert_nothing_written(folder, archive)


@pytest.fixture
def place(tmp_path):
    """An empty folder two levels down, so that a member that climbs out shows."""
    place = tmp_path / "top" / "root"
    place.mkdir(parents=True)
    return place


def test_a_good_archive_comes_out_whole(place, capsys):
    archive = make_zip(place / "a.zip", FILES.items())
    folder = place / "made" / "images"
    assert extract(archive, folder) == folder and contents(folder) == FILES
    assert is_unpacked(folder, "a.zip", archive.stat().st_size)
    assert "unpacking a.zip: 0.0 MiB of 0.0 MiB" in capsys.readouterr().err
    assert {path.name for path in folder.parent.iterdir()} == {"images"}


def test_folders_modes_and_macos_files_do_not_matter(place):
    setuid = zip_mode(stat.S_IFREG | 0o6777, "./sub/a")
    entries = [(zip_mode(stat.S_IFDIR, "./sub/"), b""), (setuid, b"x")]
    folder = extract(make_zip(place / "a.ZIP", entries), place / "out", quiet=True)
    assert contents(folder) == {"sub/a": b"x"}
    assert (folder / "sub/a").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR) == 0
    entries = [("Input/", b""), ("Input/a.jpg", b"1"), ("__MACOSX/Input/._a.jpg", b"2"), ("Input/._a.jpg", b"3")]
    archive = make_zip(place / "a.zip", entries)
    assert contents(extract(archive, place / "Input", quiet=True)) == {"a.jpg": b"1"}
    assert contents(extract(archive, place / "other", quiet=True)) == {"Input/a.jpg": b"1"}
    shared = make_zip(place / "b.zip", [("Input", b"no folder")])
    assert contents(extract(shared, place / "b" / "Input", quiet=True)) == {"Input": b"no folder"}


def zip_mode(mode, name="odd"):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ESCAPES = [
    "../../etc/x", "/etc/x", "a/../../x", "a/..", "C:/x", "C:x", "\\\\server\\share\\x", "..\\x", "a\\..\\..\\x", "\\x",
]  # fmt: skip
ODD_NAMES = ["a\\b", "a\nb", "/".join("d" * 60)]


@pytest.mark.parametrize("name", ESCAPES + ODD_NAMES)
def test_a_path_that_leaves_the_folder_is_refused(place, name):
    archive = make_zip(place / "a.zip", [("good.jpg", b"1"), (name, b"2")])
    reason = "leaves the folder" if name in ESCAPES else "is not taken on every system"
    refused(archive, f"is not unpacked, nothing was written: it holds a path that {reason}")


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(place, mode):
    archive = make_zip(place / "a.zip", [(zip_mode(mode), b"/etc/passwd")])
    refused(archive, "it holds a link or a device: 'odd'")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("a/b", b"1"), ("a/b", b"2")], "a file twice or without a name: 'a/b'"),
        ([("a/b", b"1"), ("./a//b", b"2")], "a file twice or without a name: 'a/b'"),
        ([(".", b"1")], r"a file twice or without a name: '\.'"),
        ([("a/b", b"1"), ("a", b"2")], "'a' as a file and as a folder"),
        ([("__MACOSX/x", b"1")], "no file"),
        ([], "no file"),
    ],
)
def test_a_name_that_comes_twice_or_no_file_at_all_is_refused(place, entries, message):
    archive = make_zip(place / "a.zip", entries)
    refused(archive, f"it holds {message}")


def test_encrypted_and_changed_files_are_refused(place):
    archive = make_zip(place / "a.zip", [("a", b"1")])
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1  # flag bits of the local header and of the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    refused(archive, "it is encrypted")
    with zipfile.ZipFile(place / "a.zip", "w") as file:  # stored, so that nothing but the checksum tells
        file.writestr("a.txt", b"good bytes")
    (place / "a.zip").write_bytes((place / "a.zip").read_bytes().replace(b"good bytes", b"evil bytes"))
    refused(place / "a.zip", r"a\.zip is damaged or no zip \(Bad CRC-32 for file 'a\.txt'\)")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_would_unpack_into_memory_at_once_is_refused(place, method):
    with zipfile.ZipFile(place / "a.zip", "w", method) as file:
        file.writestr("a", bytes(1 << 20))
    refused(place / "a.zip", rf"it is compressed by method {method}, not by deflate \('a'\); unpack it")


def test_a_bomb_is_refused_before_anything_is_written(place, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    archive = make_zip(place / "a.zip", [(f"{k}", bytes(1 << 20)) for k in range(4)])
    with pytest.raises(UserError, match=r"it unpacks to more than 1\.0 MiB or"):
        extract(archive, place / "out", quiet=True)
    monkeypatch.setattr(archives, "_SMALL", 1 << 23)
    monkeypatch.setattr(archives, "_MAX_FILES", 3)
    refused(archive, r"or 3 files, which no dataset does")


@pytest.mark.parametrize("where", ["half", "last bytes", "flipped"])
def test_a_damaged_archive_is_refused(place, where):
    noise = b"".join(i.to_bytes(4, "big") for i in range(4000))  # compresses badly, so that the middle is data
    archive = make_zip(place / "a.zip", [("a.jpg", noise), ("b.jpg", noise)])
    raw = bytearray(archive.read_bytes())
    if where == "flipped":
        raw[600] ^= 0xFF
    archive.write_bytes(raw[: {"half": len(raw) // 2, "last bytes": -9}.get(where)])
    refused(archive, r"a\.zip is damaged or no zip \(.*\); delete it and fetch it again")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "a.7z", "zip"])
def test_another_kind_of_archive_is_refused(place, name):
    archive = make_zip(place / name, FILES.items())
    refused(archive, f"/{name} is no .zip, and nothing else is unpacked here; unpack it by hand")


def test_what_is_no_archive_or_not_there_is_one_line(place):
    (place / "a.zip").write_bytes(b"<html>not found</html>" * 50)
    for name, message in (("a.zip", "damaged or no zip"), ("absent.zip", "cannot unpack .*No such file")):
        with pytest.raises(UserError, match=message) as caught:
            extract(place / name, place / "out", quiet=True)
        assert "\n" not in str(caught.value)


def test_done_is_done_also_without_the_archive(place):
    archive = make_zip(place / "a.zip", FILES.items())
    folder = extract(archive, place / "out", quiet=True)
    before = (folder / "a.jpg").stat()
    extract(archive, folder, quiet=True)
    assert (folder / "a.jpg").stat() == before
    archive.unlink()
    assert is_unpacked(folder, "a.zip") and not is_unpacked(place / "absent", "a.zip")


def test_a_folder_with_something_else_in_it_is_left_alone(place):
    archive = make_zip(place / "a.zip", FILES.items())
    (place / "mine").mkdir()
    (place / "mine" / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and was not unpacked by ltbench; use it as it is, or move it away"):
        extract(archive, place / "mine", quiet=True)
    assert contents(place / "mine") == {"note.txt": b"mine"}
    folder = extract(archive, place / "out", quiet=True)
    other = make_zip(place / "b.zip", [("b", b"1")])
    with pytest.raises(UserError, match=r"was unpacked from another archive \(a\.zip"):
        extract(other, folder, quiet=True)
    (place / "empty").mkdir()
    assert contents(extract(archive, place / "empty", quiet=True)) == FILES


def test_what_changed_in_an_unpacked_folder_is_told(place):
    archive = make_zip(place / "a.zip", FILES.items())
    folder = extract(archive, place / "out", quiet=True)
    (folder / "deep/er/b.jpg").write_bytes(b"short")
    with pytest.raises(UserError, match=r"changed since it was unpacked: deep/er/b\.jpg has 5 bytes, not 3000; move"):
        extract(archive, folder, quiet=True)
    (folder / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"changed since it was unpacked: a\.jpg is missing and 1 more; move it"):
        is_unpacked(folder, "a.zip")
    (folder / RECORD).write_text("{}")
    with pytest.raises(UserError, match="was not unpacked by ltbench"):
        is_unpacked(folder, "a.zip")


KILLED = """
import os, signal, sys
from pathlib import Path
from ltbench.datasets.download import archives

write, count = archives._write, 0

def write_two_and_die(*args):
    global count
    count += 1
    if count > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args)

archives._write = write_two_and_die
archives.extract(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_in_the_middle_leaves_no_folder_and_the_next_run_unpacks(place):
    archive = make_zip(place / "a.zip", FILES.items())
    folder = place / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, archive, folder], timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists() and len(contents(place / ".out.unpacking")) == 2
    assert contents(extract(archive, folder, quiet=True)) == FILES
    assert not (place / ".out.unpacking").exists()
