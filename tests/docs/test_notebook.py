"""The notebook of the Python API runs from its first cell to its last, and is committed without outputs."""

import os
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import ltbench

NOTEBOOK = Path(ltbench.__file__).parent / "docs" / "api.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = str(Path(ltbench.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as short:  # sockets of worker processes have paths of 107 characters at most
        monkeypatch.setenv("TMPDIR", short)
        executed = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [str(output) for cell in executed.cells for output in cell.get("outputs", ())]
    assert any("mean_class_accuracy" in text for text in outputs)
    assert any("anchors" in text for text in outputs)


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
