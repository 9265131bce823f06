"""Images of the ISIC Archive come through the archive's own program, here a stand-in."""

from pathlib import Path

import pytest

from ltbench.datasets.download.isic_cli import commands, fetch_images
from ltbench.errors import UserError

IDS = [f"ISIC_{number:07d}" for number in range(70)]
STAND_IN = """#!/bin/sh
[ "$1 $2 $3" = "image download --search" ] || exit 9
mkdir -p "$5" && echo "$4" > "$5/attribution.txt" && echo "$4" >> "$5/asked"
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "isic"
    path.parent.mkdir()
    path.write_text(STAND_IN)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def test_every_image_is_asked_for_once() -> None:
    asked = [command[4] for command in commands(IDS, Path("folder"))]
    assert [image for query in asked for image in query.replace("isic_id:", "").split(" OR ")] == IDS
    assert len(asked) == 2 and max(map(len, asked)) < 1500


def test_attributions_of_all_batches_are_kept(program: Path, tmp_path: Path) -> None:
    fetch_images(IDS, tmp_path / "images")
    kept = sorted(path.name for path in (tmp_path / "images").glob("attribution*"))
    assert kept == ["attribution-ISIC_0000000.txt", "attribution-ISIC_0000050.txt"]
    assert len((tmp_path / "images" / "asked").read_text().splitlines()) == 2


def test_a_failure_is_told(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(UserError, match="isic image download failed with code 3; run the same command again"):
        fetch_images(IDS, tmp_path / "images")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="pip install isic-cli"):
        fetch_images(IDS, tmp_path / "images")
