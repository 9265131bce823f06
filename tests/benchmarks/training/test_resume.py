"""A trial that is killed anywhere and started again ends with the numbers of an uninterrupted one, to the bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ltbench import files
from ltbench.benchmarks import run
from ltbench.benchmarks.analysis.record_files import predictions
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError


class _Killed(BaseException):
    """Stands for a process that ends between two writes."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Make the n-th file that is written the last one: killed before it is renamed, or just after."""
    write = files.write_bytes

    def arrange(number: int, after: bool) -> None:
        count = 0

        def counted(path: Path, data: bytes, *, durable: bool = False) -> None:
            nonlocal count
            count += 1
            if count == number and not after:
                path.with_name(f"{path.name}.1.tmp").write_bytes(bytes(data)[: len(data) // 2])
                raise _Killed
            write(path, data, durable=durable)
            if count == number:
                raise _Killed

        monkeypatch.setattr(files, "write_bytes", counted)

    return arrange


@pytest.mark.parametrize("name", ["ce", "flex", "la_posthoc", "oltr"])
def test_killed_at_any_write(
    name: str, make_spec: Any, tiny_protocol: Any, numbers_of: Any, kill_at: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    short = replace(tiny_protocol, epochs=3, batch_size=64)
    reference, spec = (make_spec(name, out=tmp_path / out, protocol=short) for out in ("reference", "killed"))
    run_trial(reference)
    kills = 0
    # Every attempt gets one or a few writes further than the one before, and dies before or after the last of them.
    for attempt in range(200):
        kill_at(2 + attempt % 7, attempt % 2 == 0)
        try:
            run_trial(spec)
            break
        except _Killed:
            kills += 1
    monkeypatch.undo()
    assert run_trial(spec) == "skipped"
    assert kills >= 5
    assert numbers_of(spec) == numbers_of(reference)


def test_epochs_after_the_checkpoint_are_trained_again_and_logged_once(
    make_spec: Any, tiny_protocol: Any, numbers_of: Any, tmp_path: Path
) -> None:
    short = replace(tiny_protocol, epochs=4, batch_size=64)
    reference, spec = (make_spec("crt", out=tmp_path / out, protocol=short) for out in ("reference", "killed"))
    run_trial(reference)
    for seconds in (0.0, 3600.0, 3600.0):
        with pytest.raises(_Killed):
            run_trial(replace(spec, checkpoint_seconds=seconds), display=_KillsAt(1))
    assert run_trial(replace(spec, checkpoint_seconds=3600.0)) == "done"
    assert numbers_of(spec) == numbers_of(reference)


def test_a_method_that_goes_back_to_the_shared_encoder_finds_it_after_a_restart(
    make_spec: Any, tiny_protocol: Any, numbers_of: Any, tmp_path: Path
) -> None:
    short = replace(tiny_protocol, epochs=3, batch_size=64, init="ce")
    reference, spec = (make_spec("curriculumnet", out=tmp_path / out, protocol=short) for out in ("whole", "killed"))
    run_trial(reference)
    with pytest.raises(_Killed):
        run_trial(spec, display=_KillsBefore("dense"))
    run_trial(spec)
    assert numbers_of(spec) == numbers_of(reference)
    earlier = make_spec("curriculumnet", out=tmp_path / "earlier", protocol=short)
    with pytest.raises(_Killed):
        run_trial(earlier, display=_KillsBefore("dense"))
    (earlier.folder / "journal" / "weights000.pt").unlink()  # as a version left it that did not keep them
    with pytest.raises(UserError, match="weights000"):
        run_trial(earlier)


def test_a_shared_stage_gives_the_numbers_of_one_that_is_not(make_spec: Any, numbers_of: Any, tmp_path: Path) -> None:
    alone = make_spec("flex", out=tmp_path / "alone", query="random")
    run_trial(alone)
    for query in ("none", "random"):
        shared = make_spec("flex", out=tmp_path / "together", query=query)
        run_trial(shared)
    stage = files.read_json(shared.folder / "result.json")["cost"]["stages"][0]
    assert stage["name"] == "pretrain" and stage["cached"] and stage["steps"] > 0 and stage["seconds"] > 0
    assert numbers_of(shared) == numbers_of(alone)


class _KillsAt:
    """A display that ends the process after the first epoch of the n-th stage that it sees."""

    def __init__(self, number: int) -> None:
        self._left = number

    def stage(self, name: str, epochs: int, done: int) -> None:
        self._left -= 1

    def epoch(self, report: Any) -> None:
        if not self._left:
            raise _Killed

    def line(self, text: str) -> None: ...


class _KillsBefore(_KillsAt):
    """A display that ends the process at the beginning of a stage."""

    def __init__(self, name: str) -> None:
        super().__init__(-1)
        self._name = name

    def stage(self, name: str, epochs: int, done: int) -> None:
        if name == self._name:
            raise _Killed


def _other_tensors(path: Path) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(own) for name, own in value.items()}
        return value + 1 if isinstance(value, torch.Tensor) else value

    files.write_tensors(path, changed(files.read_tensors(path)))


def _other_value(path: Path) -> None:
    path.write_text(path.read_text().replace("0", "1"))


TAMPERED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "stage lost": ("stage001.json", Path.unlink),
    "stage lost in between": ("stage000.json", Path.unlink),
    "stage altered": ("stage001.json", _other_value),
    "weights lost": ("weights001.pt", Path.unlink),
    "weights exchanged": ("weights001.pt", _other_tensors),
    "decision lost": ("memo-anchors.json", Path.unlink),
    "decision altered": ("memo-anchors.json", _other_value),
    "checkpoint exchanged": ("checkpoint.pt", _other_tensors),
    "foreign checkpoint": ("checkpoint.pt", lambda path: files.write_tensors(path, {"header": {}, "x": {"y": 1}})),
    "selection exchanged": ("selected-*.pt", _other_tensors),
    "another configuration": ("../config.json", lambda path: path.write_text(path.read_text() + " ")),
}


@pytest.fixture(scope="module")
def interrupted(spec_under: Any, tiny_protocol: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a trial of `flex` that was killed in its third stage; only read."""
    short = replace(tiny_protocol, epochs=4, batch_size=64)
    spec = spec_under(tmp_path_factory.mktemp("interrupted"), "flex", protocol=short)
    with pytest.raises(_Killed):
        run_trial(spec, display=_KillsAt(3))
    return spec


@pytest.mark.parametrize("what", TAMPERED)
def test_a_journal_that_was_tampered_with_is_refused(what: str, interrupted: Any, tmp_path: Path) -> None:
    shutil.copytree(interrupted.folder.parent, tmp_path / "row")
    spec = replace(interrupted, folder=tmp_path / "row" / "trial0")
    pattern, tamper = TAMPERED[what]
    (path,) = (spec.folder / "journal").glob(pattern)
    tamper(path)
    with pytest.raises(UserError, match=r"--fresh"):
        run_trial(spec)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_a_shared_stage_that_was_altered_is_computed_again(
    suffix: str, interrupted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(interrupted.cache, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*{suffix}")
    before = path.with_suffix(".json").read_text()
    (_other_tensors if suffix == ".pt" else _other_value)(path)
    spec = replace(interrupted, cache=tmp_path / "cache", folder=interrupted.folder.with_name(f"trial-of{suffix}"))
    with pytest.raises(_Killed):
        run_trial(spec, display=_KillsAt(2))
    assert "is computed again" in capsys.readouterr().err
    weights = [json.loads(text)["weights"] for text in (before, path.with_suffix(".json").read_text())]
    assert weights[0] == weights[1]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_the_command_killed_and_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"method": "ce", "ratio": 5, "trials": 2, "epochs": 12, "image-size": 16, "n-max": 30}
    settings |= {"val-per-class": 4, "test-per-class": 5, "batch-size": 16, "patience": 50}
    settings |= {"checkpoint-seconds": 0}
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    reference, killed = str(tmp_path / "reference"), tmp_path / "killed"
    assert run.main([*arguments, "--jobs", "1", "--out", reference]) == 0
    command = [sys.executable, run.__file__, *arguments, "--jobs", "2", "--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(killed.glob("*/*/trial0/journal/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    capsys.readouterr()
    assert run.main([*arguments, "--jobs", "1", "--out", str(killed)]) == 0
    assert "2 trials; cpu" in capsys.readouterr().out
    paths = [path.relative_to(reference) for path in Path(reference).glob("*/*/trial*/predictions.npz")]
    assert len(paths) == 2
    for path in paths:
        one, two = (predictions.read_predictions(Path(folder) / path) for folder in (reference, killed))
        assert all((one[key] == two[key]).all() for key in one)
