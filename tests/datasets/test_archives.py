"""Unpacking: what is good comes out whole, what is hostile or damaged leaves nothing behind."""

import gzip
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from ltbench.datasets import archives
from ltbench.datasets.archives import RECORD, damage, extract, is_unpacked
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


def make_tar(path, entries, mode="w:gz"):
    """Entries are (name or TarInfo, bytes)."""
    with tarfile.open(path, mode) as file:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
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
    assert names <= {archive.name, f".{folder.name}.lock"}
    assert {path.name for path in folder.parent.parent.iterdir()} == {folder.parent.name}


@pytest.fixture
def place(tmp_path):
    """An empty folder two levels down, so that a member that climbs out shows."""
    place = tmp_path / "top" / "root"
    place.mkdir(parents=True)
    return place


@pytest.mark.parametrize("kind", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_a_good_archive_comes_out_whole(place, kind, capsys):
    make = make_zip if kind == "zip" else lambda path, entries: make_tar(path, entries, kind)
    archive = make(place / "a.bin", FILES.items())
    folder = place / "made" / "images"
    assert extract(archive, folder) == folder and contents(folder) == FILES
    assert is_unpacked(folder, "a.bin", archive.stat().st_size) and damage(folder, contents=True) == []
    assert "unpacking a.bin: 0.0 MiB of 0.0 MiB" in capsys.readouterr().err
    assert {path.name for path in folder.parent.iterdir()} == {"images", ".images.lock"}


def test_folders_in_an_archive_and_modes_do_not_matter(place):
    folder_entry = tarfile.TarInfo("./sub")
    folder_entry.type, folder_entry.mode = tarfile.DIRTYPE, 0o000
    setuid = tarfile.TarInfo("./sub/a")
    setuid.mode, setuid.uid = 0o6777, 0
    folder = extract(make_tar(place / "a.tar", [(folder_entry, b""), (setuid, b"x")]), place / "out", quiet=True)
    assert contents(folder) == {"sub/a": b"x"}
    assert (folder / "sub/a").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR) == 0


def test_a_top_folder_of_the_same_name_is_dropped_and_macos_files_too(place):
    entries = [("Input/", b""), ("Input/a.jpg", b"1"), ("__MACOSX/Input/._a.jpg", b"2"), ("Input/._a.jpg", b"3")]
    archive = make_zip(place / "a.zip", entries)
    assert contents(extract(archive, place / "Input", quiet=True)) == {"a.jpg": b"1"}
    assert contents(extract(archive, place / "other", quiet=True)) == {"Input/a.jpg": b"1"}
    shared = make_zip(place / "b.zip", [("Input", b"no folder")])
    assert contents(extract(shared, place / "b" / "Input", quiet=True)) == {"Input": b"no folder"}


def link(kind, target, name="link"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_mode(mode, name="odd"):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


ESCAPES = [
    "../../etc/x", "/etc/x", "a/../../x", "a/..", "C:/x", "C:x", "\\\\server\\share\\x", "..\\x", "a\\..\\..\\x", "\\x",
]  # fmt: skip
ODD_NAMES = ["a\\b", "a\nb", "/".join("d" * 60)]


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ESCAPES + ODD_NAMES)
def test_a_path_that_leaves_the_folder_is_refused(place, make, name):
    archive = make(place / "a.bin", [("good.jpg", b"1"), (name, b"2")])
    reason = "leaves the folder" if name in ESCAPES else "is not taken on every system"
    with pytest.raises(UserError, match=f"is not unpacked, nothing was written: it holds a path that {reason}"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


@pytest.mark.parametrize(
    "entries",
    [
        [(link(tarfile.SYMTYPE, "/etc"), b""), ("link/x", b"through the link")],
        [(link(tarfile.SYMTYPE, "../../.."), b"")],
        [("a", b"1"), (link(tarfile.LNKTYPE, "../../../etc/passwd"), b"")],
        [(link(tarfile.CHRTYPE, ""), b"")],
        [(link(tarfile.BLKTYPE, ""), b"")],
        [(link(tarfile.FIFOTYPE, ""), b"")],
    ],
)
def test_links_and_devices_in_a_tar_are_refused(place, entries):
    archive = make_tar(place / "a.tar.gz", entries)
    with pytest.raises(UserError, match="it holds a link or a device: 'link'"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(place, mode):
    archive = make_zip(place / "a.zip", [(zip_mode(mode), b"/etc/passwd")])
    with pytest.raises(UserError, match="it holds a link or a device: 'odd'"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [make_zip, make_tar])
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
def test_a_name_that_comes_twice_or_no_file_at_all_is_refused(place, make, entries, message):
    archive = make(place / "a.bin", entries)
    with pytest.raises(UserError, match=f"it holds {message}"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


def test_an_encrypted_zip_is_refused(place):
    archive = make_zip(place / "a.zip", [("a", b"1")])
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1  # flag bits of the local header and of the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(UserError, match="it is encrypted"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_bomb_is_refused_before_anything_is_written(place, make, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    archive = make(place / "a.bin", [(f"{k}", bytes(1 << 20)) for k in range(4)])
    with pytest.raises(UserError, match=r"it unpacks to more than 1\.0 MiB or"):
        extract(archive, place / "out", quiet=True)
    monkeypatch.setattr(archives, "_SMALL", 1 << 23)
    monkeypatch.setattr(archives, "_MAX_FILES", 3)
    with pytest.raises(UserError, match=r"or 3 files, which no dataset does"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


def test_zeros_after_the_end_mark_of_a_tar_are_a_bomb_too(place, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    plain = make_tar(place / "a.tar", [("a", b"1")], "w:").read_bytes()
    (place / "a.tar").write_bytes(gzip.compress(plain + bytes(4 << 20)))
    with pytest.raises(UserError, match=r"goes on for more than 1\.0 MiB after its end mark"):
        extract(place / "a.tar", place / "out", quiet=True)
    assert_nothing_written(place / "out", place / "a.tar")


def test_a_tar_of_negative_size_ends(place):
    info = tarfile.TarInfo("a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # base 256: -512
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    (place / "a.tar").write_bytes(header + bytes(1024))
    with pytest.raises(UserError, match="negative size"):
        extract(place / "a.tar", place / "out", quiet=True)


def test_a_full_disk_is_noticed_before_anything_is_written(place, monkeypatch):
    archive = make_zip(place / "a.zip", FILES.items())
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(UserError, match=r"unpacking a\.zip needs .* MiB in .* and 0\.0 MiB are free; free some space"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


@pytest.mark.parametrize("kind", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("where", ["half", "last bytes", "flipped"])
def test_a_damaged_archive_is_refused(place, kind, where):
    noise = b"".join(i.to_bytes(4, "big") for i in range(4000))  # compresses badly, so that the middle is data
    make = make_zip if kind == "zip" else lambda path, entries: make_tar(path, entries, kind)
    archive = make(place / "a.bin", [("a.jpg", noise), ("b.jpg", noise)])
    raw = bytearray(archive.read_bytes())
    if where == "flipped":
        raw[600 if kind != "w:" else 512 + 16384 + 5] ^= 0xFF  # a plain tar protects its headers alone
    archive.write_bytes(raw[: {"half": len(raw) // 2, "last bytes": -9 if kind != "w:" else -10_000}.get(where)])
    with pytest.raises(UserError, match=r"a\.bin is damaged or no zip or tar \(.*\); delete it and fetch it again"):
        extract(archive, place / "out", quiet=True)
    assert_nothing_written(place / "out", archive)


def test_a_tar_cut_between_two_members_is_refused(place):
    archive = make_tar(place / "a.tar", [("a", b"1"), ("b", b"2")], "w:")
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(UserError, match=r"damaged or no zip or tar \(no end mark\)"):
        extract(archive, place / "out", quiet=True)


def test_what_is_no_archive_or_not_there_is_one_line(place):
    (place / "a.zip").write_bytes(b"<html>not found</html>" * 50)
    for name, message in (("a.zip", "damaged or no zip or tar"), ("absent.zip", "cannot unpack .*No such file")):
        with pytest.raises(UserError, match=message) as caught:
            extract(place / name, place / "out", quiet=True)
        assert "\n" not in str(caught.value)


def test_a_tar_whose_last_member_is_a_zip_is_a_tar(place):
    inner = make_zip(place / "inner.zip", [("x", b"1")]).read_bytes()
    archive = make_tar(place / "a.tar", [("inner.zip", inner)], "w:")
    assert contents(extract(archive, place / "out", quiet=True)) == {"inner.zip": inner}


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
    (folder / "a.jpg").write_bytes(b"0ne")
    assert damage(folder) == [] and damage(folder, contents=True) == ["a.jpg has other content"]
    (folder / "deep/er/b.jpg").write_bytes(b"short")
    (folder / "empty.txt").unlink()
    assert damage(folder) == ["deep/er/b.jpg has 5 bytes, not 3000", "empty.txt is missing"]
    with pytest.raises(UserError, match=r"changed since it was unpacked: deep/er/b\.jpg has .* and 1 more; move it"):
        extract(archive, folder, quiet=True)
    with pytest.raises(UserError, match="was not unpacked by ltbench"):
        damage(place)


KILLED = """
import os, signal, sys
from pathlib import Path
from ltbench.datasets import archives

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
