"""A manifest tells every change of a folder by file and row, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltbench.datasets.image_files import FileSource
from ltbench.datasets.synthetic import Synthetic
from ltbench.datasets.verification import MANIFEST, count_problems, problems, write_manifest
from ltbench.errors import UserError

IDS = [f"image{number}" for number in range(6)]
LABELS = [0, 0, 0, 0, 1, 1]


class Album(FileSource):
    """Six images of two classes; the last one is missing."""

    name = "album"
    title = "Album"
    preset = "quick"
    class_names = ("nevus", "melanoma")
    remedy = "take it again"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.folder = root
        self.ids, self.labels = np.array(IDS), np.array(LABELS, dtype=np.int64)
        self.lesions, self.files = self.ids, np.array([f"images/{image}.png" for image in IDS])
        self.present = np.array([(root / file).is_file() for file in self.files.tolist()])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(IDS[:-1]):
        Image.new("RGB", (9, 7), (40 * number, 0, 0)).save(tmp_path / "images" / f"{image}.png")
    (tmp_path / "labels.csv").write_text("as it was\n")
    assert write_manifest(Album(tmp_path), tmp_path, tmp_path / MANIFEST, quiet=True) == 6
    return tmp_path


def _problems(root: Path, source: Album | None = None) -> list[str]:
    return list(problems(root, root / MANIFEST, source or Album(root), workers=2, quiet=True))


def _rewrite(root: Path, line: int, old: str, new: str) -> None:
    lines = (root / MANIFEST).read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (root / MANIFEST).write_text("\n".join(lines) + "\n")


def _remove(root: Path, line: int) -> None:
    lines = (root / MANIFEST).read_text().splitlines()
    (root / MANIFEST).write_text("\n".join(lines[: line - 1] + lines[line:]) + "\n")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_an_untouched_folder_has_no_problem(root: Path) -> None:
    assert (root / MANIFEST).read_text().splitlines()[6] == "image5,melanoma,,,"
    assert _problems(root) == []


ONE_LINE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "flipped byte": (lambda root: _flip(root / "images/image2.png"), ["line 4", "image2.png", "other bytes"]),
    "other size": (lambda root: (root / "images/image2.png").write_bytes(b"12"), ["line 4", "image2.png", "2 bytes"]),
    "missing": (lambda root: (root / "images/image2.png").unlink(), ["line 4", "image2.png", "is missing"]),
    "changed table": (lambda root: _flip(root / "labels.csv"), ["line 8", "labels.csv", "other bytes"]),
    "stray image": (lambda root: (root / "images/new.png").write_bytes(b"1"), [MANIFEST, "new.png", "in no row"]),
    "new image": (
        lambda root: Image.new("RGB", (2, 2)).save(root / "images/image5.png"),
        ["line 7", "image5.png", "does not name"],
    ),
    "dropped row": (lambda root: _remove(root, 4), [MANIFEST, "has no row", "image 3 of its tables", "image2.png"]),
    "unknown class": (lambda root: _rewrite(root, 4, "nevus", "wart"), ["line 4", "image2.png", "'wart'", "melanoma"]),
    "unknown image": (lambda root: _rewrite(root, 7, "image5", "image9"), ["line 7", "image9", "does not list"]),
    "path outside": (lambda root: _rewrite(root, 4, "images/", "../"), ["line 4", "image2", "leaves the data folder"]),
    "absolute path": (lambda root: _rewrite(root, 4, "images/", "/etc/"), ["line 4", "leaves the data folder"]),
    "path outside on Windows": (
        lambda root: _rewrite(root, 4, "images/", "..\\"),
        ["line 4", "leaves the data folder"],
    ),
    "no checksum": (
        lambda root: _rewrite(root, 4, "nevus,images/image2.png,", "nevus,images/image2.png,x"),
        ["line 4"],
    ),
    "repeated image": (lambda root: _rewrite(root, 7, "image5", "image4"), ["line 7", "repeats the image of line 6"]),
}


@pytest.mark.parametrize("change", ONE_LINE)
def test_a_change_is_told_in_one_line(change: str, root: Path) -> None:
    alter, words = ONE_LINE[change]
    alter(root)
    found = [line for line in _problems(root) if "image5, melanoma" not in line]  # the row that two changes take away
    assert len(found) == 1 and "\n" not in found[0]
    assert all(word in found[0] for word in [MANIFEST, *words]), found


def test_swapped_labels_are_two_lines(root: Path) -> None:
    source = Album(root)
    source.labels[[1, 4]] = source.labels[[4, 1]]
    first, second = _problems(root, source)
    assert "line 3 (image1" in first and "'nevus'" in first and "image 2 of its tables" in first
    assert "line 6 (image4" in second and "'melanoma'" in second


def test_swapped_files_are_found(root: Path) -> None:
    source = Album(root)
    source.files[[0, 1]] = source.files[[1, 0]]
    assert [line.partition(" (")[0][-6:] for line in _problems(root, source)] == ["line 2", "line 3"]


def test_files_are_compared_where_the_tables_cannot_be_read(root: Path) -> None:
    _flip(root / "images/image0.png")
    (line,) = problems(root, root / MANIFEST, None, quiet=True)
    assert "image0.png" in line


def test_counts_are_compared_with_those_of_the_whole_dataset(root: Path) -> None:
    source = Album(root)
    assert count_problems(source) == []
    source.expected_counts = {"nevus": 4, "melanoma": 3}
    assert count_problems(source) == ["class 'melanoma': the tables list 2 images, the whole dataset has 3"]


def test_images_without_files_are_labels_alone(tmp_path: Path) -> None:
    source = Synthetic()
    assert write_manifest(source, tmp_path, tmp_path / MANIFEST, quiet=True) == 0
    assert list(problems(tmp_path, tmp_path / MANIFEST, source, quiet=True)) == []


def test_a_manifest_is_never_overwritten_and_must_be_one(root: Path) -> None:
    with pytest.raises(UserError, match="exists; delete it"):
        write_manifest(Album(root), root, root / MANIFEST, quiet=True)
    with pytest.raises(UserError, match="verify --create"):
        list(problems(root, root / "none.csv", None, quiet=True))
    with pytest.raises(UserError, match=r"lacks the column\(s\) id"):
        list(problems(root, root / "labels.csv", None, quiet=True))
    with pytest.raises(UserError, match="give another place with --manifest"):
        write_manifest(Album(root), root, root / "no" / "folder.csv", quiet=True)


def test_images_outside_the_folder_are_refused(root: Path) -> None:
    source = Album(root)
    with pytest.raises(UserError, match="outside the data folder"):
        write_manifest(source, root / "images" / "deeper", root / "other.csv", quiet=True)
