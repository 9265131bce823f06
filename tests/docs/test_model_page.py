"""The page "A model at work" runs from its first block to its last, as pasted."""

import glob
import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest

import ltbench

PAGE = Path(ltbench.__file__).parent / "docs" / "model.md"
TINY = ["--image-size", "16", "--epochs", "1", "--n-max", "200", "--val-per-class", "12", "--test-per-class", "9"]
TINY += ["--jobs", "1", "--device", "cpu"]


def expanded(word: str) -> list[str]:
    return sorted(glob.glob(word)) or [word] if "*" in word else [word]  # noqa: PTH207  as a shell does


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for language, text in blocks:
        if language == "python":
            (tmp_path / "block.py").write_text(text)
            runpy.run_path(str(tmp_path / "block.py"))
            continue
        for line in (line for line in text.splitlines() if line.startswith("python ")):
            _, file, *words = shlex.split(line)
            command = importlib.import_module(f"ltbench.benchmarks.{Path(file).stem}")
            arguments = [each for word in words for each in expanded(word)]
            assert command.main([*arguments, *(TINY if Path(file).stem == "run" else [])]) == 0, line
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {"onnx", "torchscript", "timm", "safetensors"}
    assert (tmp_path / "montage.png").exists() and "accuracy of 9 images" in capsys.readouterr().out
