"""A manifest tells every change of a folder by file and row, in one line."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltbench.datasets.checks.verification import count_problems, problems, write_manifest
from ltbench.datasets.sources._image_files import FileSource
from ltbench.datasets.sources.csv import CsvTable
from ltbench.datasets.sources.synthetic import Synthetic
from ltbench.datasets.tables import CHECKSUMS
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
    assert write_manifest(Album(tmp_path), tmp_path, tmp_path / CHECKSUMS, quiet=True) == 6
    return tmp_path


def _problems(root: Path, source: FileSource | None = None) -> list[str]:
    return list(problems(root, root / CHECKSUMS, source or Album(root), workers=2, quiet=True))


def _rewrite(root: Path, line: int, old: str, new: str) -> None:
    lines = (root / CHECKSUMS).read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    (root / CHECKSUMS).write_text("\n".join(lines) + "\n")


def _remove(root: Path, line: int) -> None:
    lines = (root / CHECKSUMS).read_text().splitlines()
    (root / CHECKSUMS).write_text("\n".join(lines[: line - 1] + lines[line:]) + "\n")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_an_untouched_folder_has_no_problem_and_files_need_no_tables(root: Path) -> None:
    assert (root / CHECKSUMS).read_text().splitlines()[6] == "image5,melanoma,image5,,,,"
    assert _problems(root) == []
    source = Album(root)
    assert count_problems(source) == []
    source.expected_counts = {"nevus": 4, "melanoma": 3}
    assert count_problems(source) == ["class 'melanoma': the tables list 2 images, the whole dataset has 3"]
    _flip(root / "images/image0.png")
    (line,) = problems(root, root / CHECKSUMS, None, quiet=True)
    assert "image0.png" in line


ONE_LINE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "flipped byte": (lambda root: _flip(root / "images/image2.png"), ["line 4", "image2.png", "other bytes"]),
    "other size": (lambda root: (root / "images/image2.png").write_bytes(b"12"), ["line 4", "image2.png", "2 bytes"]),
    "missing": (lambda root: (root / "images/image2.png").unlink(), ["line 4", "image2.png", "is missing"]),
    "changed table": (lambda root: _flip(root / "labels.csv"), ["line 8", "labels.csv", "other bytes"]),
    "stray image": (lambda root: (root / "images/new.png").write_bytes(b"1"), [CHECKSUMS, "new.png", "in no row"]),
    "new image": (
        lambda root: Image.new("RGB", (2, 2)).save(root / "images/image5.png"),
        ["line 7", "image5.png", "does not name"],
    ),
    "dropped row": (lambda root: _remove(root, 4), [CHECKSUMS, "has no row", "image 3 of its tables", "image2.png"]),
    "unknown class": (lambda root: _rewrite(root, 4, "nevus", "wart"), ["line 4", "image2.png", "'wart'", "melanoma"]),
    "unknown image": (lambda root: _rewrite(root, 7, "image5", "image9"), ["line 7", "image9", "does not list"]),
    "path outside": (lambda root: _rewrite(root, 4, "images/", "../"), ["line 4", "image2", "leaves the data folder"]),
    "absolute path": (lambda root: _rewrite(root, 4, "images/", "/etc/"), ["line 4", "leaves the data folder"]),
    "path outside on Windows": (
        lambda root: _rewrite(root, 4, "images/", "..\\"),
        ["line 4", "leaves the data folder"],
    ),
    "no checksum": (lambda root: _rewrite(root, 4, "images/image2.png,", "images/image2.png,x"), ["line 4"]),
    "repeated image": (lambda root: _rewrite(root, 7, "image5", "image4"), ["line 7", "repeats the image of line 6"]),
}


@pytest.mark.parametrize("change", ONE_LINE)
def test_a_change_is_told_in_one_line(change: str, root: Path) -> None:
    alter, words = ONE_LINE[change]
    alter(root)
    found = [line for line in _problems(root) if "image5, melanoma" not in line]  # the row that two changes take away
    assert len(found) == 1 and "\n" not in found[0]
    assert all(word in found[0] for word in [CHECKSUMS, *words]), found


def test_swapped_labels_and_files_are_two_lines(root: Path) -> None:
    source = Album(root)
    source.labels[[1, 4]] = source.labels[[4, 1]]
    first, second = _problems(root, source)
    assert "line 3 (image1" in first and "'nevus'" in first and "image 2 of its tables" in first
    assert "line 6 (image4" in second and "'melanoma'" in second
    source = Album(root)
    source.files[[0, 1]] = source.files[[1, 0]]
    assert [line.partition(" (")[0][-6:] for line in _problems(root, source)] == ["line 2", "line 3"]


def test_a_changed_group_and_part_are_told_by_row(root: Path) -> None:
    source = Album(root)
    source.parts = np.array(["train", "val", "", "", "train", "test"])
    (root / CHECKSUMS).unlink()
    write_manifest(source, root, root / CHECKSUMS, quiet=True)
    assert _problems(root, source) == []
    source.lesions = source.lesions.copy()
    source.lesions[1], source.parts[4] = "image0", "test"
    first, second = _problems(root, source)
    assert "line 3 (image1" in first and "has the group 'image1', the dataset (image 2 of its tables) 'image0'" in first
    assert "line 6 (image4" in second and "has the part 'train', the dataset (image 5 of its tables) 'test'" in second


def test_images_without_files_are_labels_alone(tmp_path: Path) -> None:
    source = Synthetic()
    assert write_manifest(source, tmp_path, tmp_path / CHECKSUMS, quiet=True) == 0
    assert list(problems(tmp_path, tmp_path / CHECKSUMS, source, quiet=True)) == []


def test_a_manifest_is_never_overwritten_nor_of_files_outside(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(UserError, match="exists; delete it"):
        write_manifest(Album(root), root, root / CHECKSUMS, quiet=True)
    with pytest.raises(UserError, match="verify --create"):
        list(problems(root, root / "none.csv", None, quiet=True))
    with pytest.raises(UserError, match=r"lacks the column\(s\) id"):
        list(problems(root, root / "labels.csv", None, quiet=True))
    with pytest.raises(UserError, match="give another place with --manifest"):
        write_manifest(Album(root), root, root / "no" / "folder.csv", quiet=True)
    source = Album(root)
    with pytest.raises(UserError, match="outside the data folder"):
        write_manifest(source, root / "images" / "deeper", root / "other.csv", quiet=True)
    table = tmp_path_factory.mktemp("elsewhere") / "mine.csv"
    source = _table(root, str(table))
    with pytest.raises(UserError, match=r"the table .*mine\.csv is outside the data folder .*--data-root"):
        write_manifest(source, root, root / "other.csv", quiet=True)


def _table(root: Path, path: str, **columns: str) -> CsvTable:
    """Write a table of the five images that are there, with a group, and more columns, one value for all images."""
    (root / path).parent.mkdir(exist_ok=True)
    lines = [",".join(["image,label,group", *columns])]
    for number, image in enumerate(IDS[:-1]):
        lines.append(",".join([f"{image}.png,{'xy'[number > 2]},g{number}", *columns.values()]))
    (root / path).write_text("\n".join(lines) + "\n")
    return CsvTable(root, table=path, images=root / "images")


@pytest.mark.parametrize("path", ["mine.csv", "mine.txt", "tab/mine.csv", CHECKSUMS])
def test_a_table_is_compared_wherever_it_lies(path: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (root / CHECKSUMS).unlink()
    manifest = tmp_path_factory.mktemp("elsewhere") / Path(path).with_suffix(".csv").name
    assert write_manifest(_table(root, path), root, manifest, quiet=True) == 6
    assert list(problems(root, manifest, _table(root, path), quiet=True)) == []
    (root / path).write_text((root / path).read_text().replace("g3", "g2"))
    table, row = problems(root, manifest, CsvTable(root, table=path, images=root / "images"), quiet=True)
    assert f"line 7 ({path}): the file {root / path} has other bytes" in table
    name = Path(path).name
    assert f"line 5 (image3.png, images/image3.png) has the group 'g3', the dataset ({name}, line 5) 'g2'" in row


def test_a_table_that_shares_its_name_with_the_manifest_is_compared(root: Path, tmp_path_factory: Any) -> None:
    manifest = tmp_path_factory.mktemp("elsewhere") / "labels.csv"
    assert write_manifest(Album(root), root, manifest, quiet=True) == 6
    _flip(root / "labels.csv")
    (line,) = problems(root, manifest, Album(root), quiet=True)
    assert "labels.csv has other bytes" in line


def test_a_folder_may_be_named_by_a_link_or_from_here(root: Path, tmp_path_factory: Any, monkeypatch: Any) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "data"
    link.symlink_to(root)
    _table(root, "tab/mine.csv")
    monkeypatch.chdir(link.parent)
    for folder in (link, Path("data")):
        source = CsvTable(folder, table="tab/mine.csv", images="../images")
        assert write_manifest(source, folder, link.parent / f"{folder.is_absolute()}.csv", quiet=True) == 6


def test_the_checksums_of_a_table_are_compared(root: Path) -> None:
    manifest, zeros = root / CHECKSUMS, "0" * 64
    manifest.unlink()
    with pytest.raises(UserError, match=r"image0\.png \(mine\.csv, line 2\) has the SHA-256 [0-9a-f]{64}, not 0{64}"):
        write_manifest(_table(root, "mine.csv", sha256=zeros), root, manifest, quiet=True)
    assert not manifest.exists()
    source = _table(root, "mine.csv", sha256="")
    assert write_manifest(source, root, manifest, quiet=True) == 6 and _problems(root, source) == []
    found = hashlib.sha256((root / "images/image3.png").read_bytes()).hexdigest()
    text = (root / "mine.csv").read_text()
    (root / "mine.csv").write_text(text.replace("g3,", f"g3,{found.upper()}").replace("g4,", f"g4,{zeros}"))
    table, row = _problems(root, CsvTable(root, table="mine.csv", images="images"))
    assert "line 7 (mine.csv)" in table
    assert "line 6 (image4.png" in row and f"the dataset (mine.csv, line 6) '{zeros}'" in row
