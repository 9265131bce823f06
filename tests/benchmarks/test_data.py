"""The dataset command: what leaks and what changed is found, and named by file and row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltbench.benchmarks import data

SHARED = Path(os.environ.get("LTBENCH_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
real = pytest.mark.skipif(not (SHARED / "isic2019-ham").is_dir(), reason="the ISIC 2019 folder is not here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A table of 60 images of two classes, two images to a lesion."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,group"]
    for number in range(60):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{'nevus' if number < 40 else 'melanoma'},L{number // 2}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder


def _run(root: Path, command: str, *more: str) -> int:
    return data.main([command, "csv", "--data-root", str(root), *more])


def _edit(path: Path, line: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines) + "\n")


def test_an_untouched_folder_is_as_its_manifest(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(root, "verify") == 2
    assert "--create" in capsys.readouterr().err
    assert _run(root, "verify", "--create") == 0 and _run(root, "verify") == 0
    assert "as in" in capsys.readouterr().out


def _flip_a_byte(root: Path) -> None:
    path = root / "07.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def _swap_two_labels(root: Path) -> None:
    _edit(root / "table.csv", 9, "nevus", "melanoma")
    _edit(root / "table.csv", 45, "melanoma", "nevus")


def _drop_a_row(root: Path) -> None:
    lines = (root / "table.csv").read_text().splitlines()
    (root / "table.csv").write_text("\n".join(lines[:8] + lines[9:]) + "\n")


CHANGES = {
    "a byte is flipped": (_flip_a_byte, ["07.png", "line 9"]),
    "two labels are swapped": (_swap_two_labels, ["line 9", "nevus", "melanoma"]),
    "a row is dropped": (_drop_a_row, ["07.png", "line 9"]),
    "a path leads outside": (lambda root: _edit(root / "table.csv", 9, "07.png", "../07.png"), ["table.csv", "line 9"]),
    "a label is empty": (lambda root: _edit(root / "table.csv", 9, "nevus", ""), ["table.csv", "line 9"]),
    "an image is missing": (lambda root: (root / "07.png").unlink(), ["07.png", "line 9"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named_by_file_and_row(change: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(root, "verify", "--create") == 0
    capsys.readouterr()
    alter, words = CHANGES[change]
    alter(root)
    assert _run(root, "verify") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert any(all(word in line for word in words) for line in lines), lines


def test_an_unknown_class_is_named_by_file_and_row(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit(root / "table.csv", 9, "nevus", "wart")
    assert _run(root, "audit", "--dataset-option", "classes=nevus,melanoma") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in ("table.csv", "line 9", "wart"))


def _audit(root: Path, *more: str) -> dict[str, object]:
    report = root.parent / "audit.json"
    assert _run(root, "audit", "--ratio", "natural", "--json", str(report), *more) == 0
    return json.loads(report.read_text())


def test_lesions_in_two_parts_are_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _audit(root, "--split", "lesion", "--no-images")
    assert "leaks train/test: 0 of" in capsys.readouterr().out
    _audit(root, "--split", "paper", "--no-images")
    printed = capsys.readouterr().out
    assert "leaks train/test: " in printed and "leaks train/test: 0 of" not in printed
    assert _run(root, "audit", "--ratio", "natural", "--split", "paper", "--no-images", "--strict") == 1


def test_copies_and_contradicting_labels_are_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "50.png").write_bytes((root / "03.png").read_bytes())
    (root / "55.png").write_bytes(b"no image")
    _audit(root)
    printed = capsys.readouterr().out
    assert "different labels: 1" in printed and "unreadable: 1" in printed and "55" in printed


BAD: Sequence[tuple[str, str]] = [
    ("audit isic2020", "did you mean 'isic2019'"),
    ("audit digits --distance 99", "--distance must be from 0 to 64"),
    ("audit digits --ratio many", "--ratio must be a number or natural"),
    ("audit digits --json nowhere/a.json", "does not exist"),
    ("verify digits", "nothing to verify"),
    ("download medmnist --data-root .", "--accept-licence"),
    ("download medmnist", "--data-root"),
    ("nothing", "invalid choice"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line and list(tmp_path.iterdir()) == []


def test_the_list_and_every_dataset_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    from ltbench.datasets import available

    assert data.main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in available():
        assert f"`{name}`" in listed
    for name in ("digits", "isic2019"):
        assert data.main(["info", name]) == 0
        assert "licence" in capsys.readouterr().out


def test_a_download_fetches_what_the_options_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltbench.datasets import remote

    fetched: list[str] = []
    monkeypatch.setattr(remote, "fetch", lambda each, root: fetched.append(each.name))
    into = ["--data-root", str(tmp_path)]
    options = ["--dataset-option", "set=bloodmnist", "size=64"]
    assert data.main(["download", "medmnist", *into, *options, "--dry-run"]) == 0 and not fetched
    assert data.main(["download", "medmnist", *into, *options, "--accept-licence"]) == 0
    assert fetched == ["bloodmnist_64.npz"]
    printed = capsys.readouterr().out
    assert printed.startswith("licence: ") and "would fetch https://zenodo.org" in printed
    assert data.main(["download", "isic2019", *into, "--accept-licence"]) == 0
    assert fetched[1:] == [f"ISIC_2019_Training_{name}" for name in ("GroundTruth.csv", "Metadata.csv", "Input.zip")]
    assert data.main(["download", "digits", *into]) == 0
    assert "nothing to download" in capsys.readouterr().out
    assert data.main(["download", "medmnist", *into, "--dataset-option", "sett=x"]) == 2
    assert "did you mean 'set'" in capsys.readouterr().err


@real
@pytest.mark.parametrize(("ratio", "leaked"), [("100", 383), ("500", 245)])
def test_the_published_splits_leak(ratio: str, leaked: int, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-root", str(SHARED / "isic2019-ham")]
    splits = ["--split-dir", str(SHARED / "flexsampling-splits" / "8-class"), "--no-images"]
    assert data.main(["audit", "isic2019", *folder, "--ratio", ratio, *splits]) == 0
    assert f"leaks train/test: {leaked} of 800 test images" in capsys.readouterr().out


@real
@pytest.mark.parametrize("ratio", ["100", "200", "500"])
def test_splits_by_lesion_do_not(ratio: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-root", str(SHARED / "isic2019-ham"), "--split", "lesion", "--no-images"]
    assert data.main(["audit", "isic2019", *folder, "--ratio", ratio]) == 0
    assert "leaks train/test: 0 of 800 test images" in capsys.readouterr().out


@real
def test_the_archives_split_leaks_more(capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-root", str(SHARED / "isic2019-ham"), "--no-images"]
    assert (
        data.main(["audit", "isic_archive", *folder, "--split-dir", str(SHARED / "flexsampling-splits/14-class")]) == 0
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("leaks train/test: "))
    assert int(line.split()[2]) >= 2829
