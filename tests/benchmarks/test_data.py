"""The dataset command: what leaks and what changed is found, and named by file and row."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ltbench.benchmarks import data
from ltbench.datasets.download import remote, whole


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of 60 images of two classes, two images to a lesion; the working folder is above it."""
    monkeypatch.chdir(tmp_path)
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


def test_a_folder_is_compared_with_its_manifest(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(root, "verify") == 2
    assert "--create" in capsys.readouterr().err
    before = sorted(root.iterdir())
    assert _run(root, "verify", "--create") == 0 and _run(root, "verify") == 0
    assert sorted(root.iterdir()) == before and (root.parent / "csv-manifest.csv").is_file()
    monkeypatch.chdir(root)
    assert _run(root, "verify", "--create") == 2
    assert _run(root, "verify", "--create", "--manifest", "named-manifest.csv") == 0
    assert "as in" in capsys.readouterr().out
    monkeypatch.chdir(root.parent)
    (root / "named-manifest.csv").unlink()
    (root / "07.png").unlink()
    _edit(root / "table.csv", 45, "melanoma", "nevus")
    assert _run(root, "verify") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for words in (["07.png", "line 9"], ["43.png", "line 45", "melanoma", "nevus"]):
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
    strict = ["audit", "--ratio", "natural", "--split", "lesion", "--strict"]
    assert _run(root, *strict) == 0
    (root / "55.png").write_bytes(b"no image")
    assert _run(root, *strict) == 1


def test_copies_and_contradicting_labels_are_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "50.png").write_bytes((root / "03.png").read_bytes())
    (root / "55.png").write_bytes(b"no image")
    Image.fromarray(np.full((24, 30), 4095, dtype=np.uint16)).save(root / "20.png")
    (root / "table.csv").write_text((root / "table.csv").read_text().replace("melanoma", "mel|unsure"))
    _audit(root)
    printed = capsys.readouterr().out
    assert "| mel\\|unsure " in printed and "12 of 16 bits" in printed
    assert "different labels: 1" in printed and "unreadable: 1" in printed and "55" in printed


@pytest.fixture
def divided(root: Path) -> Path:
    """The same table with parts: of the test images 0 to 4, image 4 is of the lesion of train image 5."""
    parts = {**{str(number): "test" for number in range(5)}, "58": "val", "59": "val"}
    header, *rows = (root / "table.csv").read_text().splitlines()
    rows = [f"{row},{parts.get(str(number), 'train')}" for number, row in enumerate(rows)]
    (root / "table.csv").write_text("\n".join([f"{header},part", *rows]) + "\n")
    return root


def _row(printed: str, *start: str) -> dict[str, str]:
    """Return the row of a printed table that begins with these fields, by the table's headers."""
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    (number,) = (number for number, cells in enumerate(tables) if tuple(cells[: len(start)]) == start)
    rule = max(place for place, cells in enumerate(tables[:number]) if set("".join(cells)) <= set("-:"))
    return dict(zip(tables[rule - 1], tables[number], strict=True))


def test_the_report_says_what_is_known_from_what(divided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (divided / "03.png").write_bytes((divided / "30.png").read_bytes())
    assert _run(divided, "audit") == 0
    printed = capsys.readouterr().out
    row = _row(printed, "test", "train")
    assert (row["images"], row["same image"], row["same group"], row["same patient"]) == ("5", "0", "1", "n/a")
    assert (row["same pixels"], row["near-duplicate"], row["alike, group id unknown"]) == ("1", "0", "1")
    assert row["in any way"] == "2"
    assert "\nleaks train/test: 2 of 5 test images (40.0 %)\n" in printed
    assert "\nleaks train/val: 0 of 2 val images\n" in printed and "groups are not known" not in printed
    assert _run(divided, "audit", "--no-images") == 0
    row = _row(capsys.readouterr().out, "test", "train")
    looks = ("same pixels", "near-duplicate", "alike, group id unknown")
    assert [row[look] for look in looks] == ["n/a"] * 3 and row["in any way"] == "1"


def test_a_table_grouped_by_patient_has_one_column_of_them(divided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (divided / "table.csv").read_text()
    header, rest = text.split("\n", 1)
    assert "group" in header.split(",")
    (divided / "table.csv").write_text(f"{header.replace('group', 'patient')}\n{rest}")
    assert _run(divided, "audit", "--no-images") == 0
    printed = capsys.readouterr().out
    (headers,) = (line for line in printed.splitlines() if "known from" in line)
    assert headers.count("same patient") == 1
    assert _row(printed, "test", "train")["same patient"] == "1"


def test_unknown_lesions_are_not_reported_as_none(divided: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _audit(divided, "--dataset-option", "group=")
    printed = capsys.readouterr().out
    row = _row(printed, "test", "train")
    assert (row["same image"], row["same group"], row["alike, group id unknown"]) == ("0", "n/a", "n/a")
    assert "\nleaks train/test: 0 of 5 test images; groups are not known\n" in printed
    assert "lesion" not in found["overlap"]["train/test"]["leaked"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ISIC-Archive-LT: 4 images of ISIC 2019 are there, 3 of the archive are not."""
    folder = tmp_path / "archive"
    images = folder / "ISIC_2019_Training_Input"
    images.mkdir(parents=True)
    columns = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    truth = [f"ISIC_{number:07d},{'1,0' if number % 2 else '0,1'},0,0,0,0,0,0,0" for number in range(4)]
    for number in range(4):
        (images / f"ISIC_{number:07d}.jpg").write_text(f"image {number}")
    (folder / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join([f"image,{','.join(columns)}", *truth]))
    (folder / "ISIC_2019_Training_Metadata.csv").write_text("image,lesion_id\nISIC_0000000,L0\nISIC_0000001,L1\n")
    header = ["name", *(f"meta.clinical.{column}" for column in ("diagnosis", "lesion_id", "patient_id"))]
    rows = [f"ISIC_900000{number},angioma,," for number in range(3)]
    (folder / "additional_data.csv").write_text("\n".join([",".join(header), *rows]))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    _install_isic(tmp_path, 'for name in $(echo "$4" | grep -o "ISIC_[0-9]*"); do : > "$5/$name.jpg"; done')
    return folder


def _install_isic(folder: Path, body: str) -> None:
    """Put a stand-in for the archive's program where it is found: `isic image download --search QUERY FOLDER`."""
    program = folder / "bin" / "isic"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nmkdir -p "$5"\n{body}\n')
    program.chmod(0o755)


def _download(folder: Path, *more: str) -> int:
    return data.main(["download", "isic_archive", "--data-root", str(folder), *(more or ["--accept-licence"])])


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of servers, which give an empty file where an archive with the image 2 is meant."""
    names: list[str] = []

    def fetch(each: remote.Remote, root: Path) -> None:
        names.append(each.name)
        if each.unpack:
            (root / each.folder / "ISIC_0000002.jpg").touch()

    monkeypatch.setattr(whole, "fetch", fetch)
    return names


def test_a_download_fetches_what_is_missing_and_no_more(archive: Path, fetched: list[str], capsys: Any) -> None:
    assert _download(archive, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "3 images of the ISIC Archive are missing" in printed and "\nisic image download --search" in printed
    assert not (archive / "ISIC_Archive").exists()
    assert _download(archive) == 0
    assert len(list((archive / "ISIC_Archive").glob("ISIC_900000?.jpg"))) == 3 and fetched == []
    assert "all images are there" not in capsys.readouterr().out
    assert _download(archive) == 0
    assert f"all images are there, in {archive}\n" in capsys.readouterr().out
    (archive / "ISIC_2019_Training_Input" / "ISIC_0000002.jpg").unlink()
    assert _download(archive) == 0
    assert fetched == [f"ISIC_2019_Training_{name}" for name in ("GroundTruth.csv", "Metadata.csv", "Input.zip")]


@pytest.mark.parametrize("more", [["--dry-run"], ["--accept-licence"]])
def test_what_no_download_gives_is_asked_for_first(
    more: list[str], tmp_path: Path, fetched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _download(tmp_path / "new", *more) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert "needs additional_data.csv or dic.npy of the authors" in line and printed.out == "" and fetched == []


def test_a_download_that_leaves_images_missing_has_failed(
    archive: Path, tmp_path: Path, fetched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _download(tmp_path / "new", "--dry-run", "--dataset-option", f"split_dir={archive}") == 0
    printed = capsys.readouterr().out
    assert printed.count("would fetch https://") == 3 and "would then fetch the images of the ISIC Archive" in printed
    assert fetched == [] and not (tmp_path / "new").exists()
    _install_isic(tmp_path, ': > "$5/ISIC_9000000.jpg"')
    assert _download(archive) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2 images are still missing" in line and "(first: ISIC_Archive/ISIC_9000001.jpg)" in line


def test_verify_compares_the_counts_with_those_of_the_whole_dataset(archive: Path, tmp_path: Path, capsys: Any) -> None:
    verify = ["verify", "isic_archive", "--data-root", str(archive), "--manifest", str(tmp_path / "m.csv")]
    counts = "class 'NV': the tables list 2 images, the whole dataset has 12875"
    assert data.main([*verify, "--create"]) == 0
    assert f"note: {counts}\n" in capsys.readouterr().err
    assert data.main(verify) == 2
    assert f"error: {counts}\n" in capsys.readouterr().err


def test_info_counts_what_is_there(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "07.png").unlink()
    assert _run(root, "info") == 0
    printed = capsys.readouterr().out
    assert _row(printed, "nevus") == {
        **{"class": "nevus", "whole dataset": "", "in the tables": "40", "images there": "39"}
    }
    assert _row(printed, "all classes")["images there"] == "59" and "not on disk" not in printed


def test_info_without_data_tells_what_is_declared(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTBENCH_DATA", raising=False)
    assert data.main(["info", "isic_archive"]) == 0
    printed = capsys.readouterr().out
    assert re.search("^not on disk: .*--data-root", printed, flags=re.MULTILINE)
    assert _row(printed, "BKL") == {"class": "BKL", "group": "medium", "whole dataset": "384"}
    assert _row(printed, "imbalance ratio")["whole dataset"] == "919.6"
    assert data.main(["info", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("not on disk: ")


BAD: Sequence[tuple[str, str]] = [
    ("info isic2019 --data-root nowhere", "--data-root nowhere is not a folder"),
    ("info isic2019 --data-root .", "ISIC_2019_Training_GroundTruth.csv is missing"),
    ("info digits --dataset-option hair=1", "unknown option of dataset digits 'hair'"),
    ("info isic_archive --split-dir nowhere", "isic_archive needs its folder"),
    ("audit digits --split-dir . --n-max 5", "--n-max would have no effect with --split-dir"),
    ("audit isic2020", "did you mean 'isic2019'"),
    ("audit digits --distance 99", "--distance must be from 0 to 64"),
    ("audit digits --json nowhere/a.json", "does not exist"),
    ("verify digits", "nothing to verify"),
    ("download medmnist --data-root .", "--accept-licence"),
    ("download medmnist", "--data-root"),
    ("nothing", "invalid choice"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line(arguments: str, message: str, refuses: Any) -> None:
    refuses(data.main, arguments.split(), message)


def test_the_list_and_every_dataset_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    from ltbench.datasets import available

    assert data.main(["list"]) == 0
    listed = capsys.readouterr().out
    for name in available():
        assert f"`{name}`" in listed
    for name in ("digits", "isic2019"):
        assert data.main(["info", name]) == 0
        assert "licence" in capsys.readouterr().out
    assert data.main(["info", "synthetic"]) == 0
    row = _row(capsys.readouterr().out, "difficulty=")
    assert row["default"] == "frequent-hard" and "rare-hard" in row["allowed"] and row["meaning"]


def test_a_download_fetches_what_the_options_say(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(whole, "fetch", lambda each, root: fetched.append(each.name))
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
