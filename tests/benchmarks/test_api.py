"""The Python interface: a program without a guard runs trials side by side; its results as tables and values."""

import subprocess
import sys
from pathlib import Path

import pytest

import ltbench
from ltbench.benchmarks import run

PROGRAM = """
import ltbench

protocol = {"epochs": 1, "image_size": 16, "batch_size": 16}
tiny = dict(n_max=30, val_per_class=3, test_per_class=4, protocol=protocol, dataset="synthetic", device="cpu")
results = ltbench.run(ltbench.Request(methods=["ce", "rs"], ratios=[5], trials=2, jobs=2, threads=1, **tiny))
print("trials:", *(record.result.trial for record in results.records))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of a program that has no `if __name__ == "__main__"`."""
    where = tmp_path_factory.mktemp("program")
    (where / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trials: 0 1 0 1\n"  # once: no worker has begun the program again
    return where / "results"


def test_results_are_tables_and_values(folder: Path) -> None:
    results = ltbench.load_results(folder)
    assert len(results.records) == 4
    table = results.table("overview")
    assert set(table["method"]) == {"ce", "rs"} and set(table["n"]) == {2} and set(table["ratio"]) == {5}
    assert len(results.where(method="ce", trial=1).records) == 1
    predictions = results.where(method="ce").predictions("val")
    assert len(predictions) == 2 * 8 * 3 and {"trial", "id", "label", "predicted"} < set(predictions.columns)
    assert results.where(method="rs", trial=0).story() == {}
    with pytest.raises(ltbench.UserError, match="a story is of one trial, and these are 4"):
        results.story()
    with pytest.raises(ltbench.UserError, match="did you mean 'overview'"):
        results.table("overvieu")


def test_records_can_be_run_again_from_their_own_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = folder.glob("*/rs-*/trial1/config.json")
    assert run.main(["--config", str(path), "--jobs", "1", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (again,) = ltbench.load_results(tmp_path).records
    assert again.folder.relative_to(tmp_path) == path.parent.relative_to(folder)
    (before,) = ltbench.load_results(folder).where(method="rs", trial=1).records
    assert again.result.test == before.result.test and again.result.data == before.result.data
    (path,) = folder.glob("*/rs-*/trial1/config.json")
    saved = tmp_path / "saved.yaml"
    options = ["--config", str(path), "--trials", "3", "--epochs", "2", "--set", "power=0.5", "--dry-run"]
    assert run.main([*options, "--fresh", "--weight-decay", "0.1", "--save-config", str(saved)]) == 0
    printed = capsys.readouterr().out
    assert "3 trials; cpu" in printed and "weight decay 0.1" in printed
    assert run.main(["--config", str(saved), "--no-fresh", "--dry-run", "--save-config", str(saved)]) == 0
    text = saved.read_text()
    assert "fresh: false\n" in text
    assert "trials: 3\n" in text and "epochs: 2\n" in text and "image_size: 16\n" in text and "power: '0.5'" in text
