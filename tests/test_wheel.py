"""The wheel, installed outside the repository: all commands by one name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ltbench

ROOT = Path(ltbench.__file__).parent
SETTINGS = {"image-size": 16, "n-max": 30, "val-per-class": 3, "test-per-class": 4, "batch-size": 16, "jobs": 1}
TINY = [word for name, value in {**SETTINGS, "device": "cpu"}.items() for word in (f"--{name}", str(value))]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder beside which a wheel of the package is installed."""
    pytest.importorskip("setuptools", "70.1", reason="a wheel is built by the setuptools at hand")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "results", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    _pip("wheel", str(folder / "source"), "--no-build-isolation", "--wheel-dir", str(folder))
    _pip("install", str(next(folder.glob("*.whl"))), "--target", str(folder / "installed"))
    shutil.rmtree(folder / "source")
    (folder / "work").mkdir()
    return folder / "work"


def _run(elsewhere: Path, *words: str) -> str:
    installed = elsewhere.parent / "installed"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, str(installed / "bin" / "ltbench"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_work_outside_the_repository(elsewhere: Path) -> None:
    assert _run(elsewhere, "--version") == f"ltbench {ltbench.__version__}\n"
    assert not (elsewhere.parent / "installed" / "ltbench" / "setup.py").exists()
    assert "| `isic2019`" in _run(elsewhere, "data", "list")
    printed = _run(elsewhere, "run", "--method", "ce", "--ratio", "5", "--epochs", "1", "--trials", "1", *TINY)
    assert printed.startswith("data: synthetic") and "### synthetic" in printed
    table = _run(elsewhere, "leaderboard")
    assert table[table.index("###") :] == printed[printed.index("###") :]
    assert [path.name for path in elsewhere.iterdir()] == ["results"]
