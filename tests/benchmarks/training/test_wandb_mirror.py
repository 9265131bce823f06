"""Weights & Biases: what is mirrored equals the records, and its failures cost a trial nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from wandb_files import offline_runs
from wandb_server import WandbServer, serving

from ltbench.benchmarks import run
from ltbench.benchmarks.analysis.metrics import confusion_matrix
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.protocol import SELECTION_METRICS
from ltbench.benchmarks.training.trial import run_trial
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.benchmarks.training.wandb_run import history_row, run_identity
from ltbench.errors import UserError
from ltbench.files import plain, read_json
from ltbench.methods.stages import EpochReport

VARIABLES = "API_KEY IDENTITY_TOKEN_FILE BASE_URL MODE PROJECT SWEEP_ID RUN_ID SERVICE CACHE_DIR DATA_DIR ARTIFACT_DIR"


@pytest.fixture(autouse=True)
def _no_wandb_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in VARIABLES.split():
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    # Its list of fonts would go to the home of whichever test draws first.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))


@pytest.fixture
def short(tiny_protocol: Any) -> Any:
    return replace(tiny_protocol, epochs=2)


def _expected_history(spec: TrialSpec) -> list[dict[str, Any]]:
    """Return what W&B must hold of `metrics.jsonl`, written down here independently of the code under test."""
    classes, expected = spec.data.class_names, []
    for number, line in enumerate((spec.folder / "metrics.jsonl").read_text().splitlines()):
        row = json.loads(line)
        wanted = {"epoch": number, "stage": row["stage"], "stage_epoch": row["epoch"]}
        wanted |= {name: row[name] for name in ("steps", "images", "seconds", "lr")}
        wanted |= {f"train/{name}": value for name, value in row["terms"].items()}
        if row["val_recall"] is not None:
            recall = dict(zip(classes, row["val_recall"], strict=True))
            wanted |= {f"val/recall/{name}": value for name, value in recall.items()}
            wanted |= {"val/loss": row["val_loss"], "val/top1": row["val_top1"]}
            wanted["val/score"] = pytest.approx(sum(recall.values()) / len(recall), abs=1e-12)
        expected.append(wanted)
    return expected


def _leaves(path: str, value: Any, classes: list[str]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and len(value) == len(classes):
        value = dict(zip(classes, value, strict=True))
    if not isinstance(value, dict):
        yield path, value
    else:
        for name, item in value.items():
            yield from _leaves(f"{path}/{name}", item, classes)


def _expected_summary(spec: TrialSpec) -> dict[str, Any]:
    """Return what W&B must hold at the end: the last value of each metric, and all of `result.json`'s numbers."""
    result, expected = read_json(spec.folder / "result.json"), {}
    for row in _expected_history(spec):
        expected |= row
    expected["val/score"] = result["selection"]["score"]
    cost = {**result["cost"], "stages": {stage.pop("name"): stage for stage in result["cost"]["stages"]}}
    for part, values in {"test": result["test"], "selection": result["selection"], "cost": cost}.items():
        expected |= _leaves(part, values, result["class_names"])
    return expected


def _ours(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name[0] != "_" and not name.startswith(CHART)}


CHART = "test/confusion_table"


def _assert_mirrored(found: dict[str, Any], spec: TrialSpec) -> None:
    *epochs, chart = found["history"]
    assert [_ours(row) for row in epochs] == _expected_history(spec)
    assert _ours(chart).keys() == {"epoch"} and chart[f"{CHART}/nrows"] == len(spec.data.class_names) ** 2
    assert [row["_step"] for row in found["history"]] == list(range(len(found["history"])))
    assert _ours(found["config"]) == read_json(spec.folder / "config.json")
    assert _ours(found["summary"]) == _expected_summary(spec)
    assert found["exit"] == 0


def test_an_offline_run_equals_the_records(
    make_spec: Any, short: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    spec = replace(make_spec("crt", protocol=short), wandb="offline", wandb_artifacts=True)
    assert run_trial(spec) == "done"
    (found,) = offline_runs(tmp_path / "results")
    _assert_mirrored(found, spec)
    assert {row["stage"] for row in found["history"][:-1]} == {"train", "classifier"}
    told = found["run"]
    assert told.project == "ltbench" and told.job_type == "train" and told.display_name == "crt-r20-s0"
    assert told.run_group == "/".join(spec.folder.parts[-3:-1]) and len(told.run_id) <= 64
    assert f"split {spec.split_digest[:12]}" in told.tags and "preset quick" in told.tags
    (table,) = tmp_path.glob(f"results/wandb/offline-run-*/files/media/table/{CHART}*")
    _, labels, logits = Record.read(spec.folder).test_predictions()
    counts = confusion_matrix(labels, logits.argmax(1), 8)
    assert [count for *_, count in read_json(table)["data"]] == counts.ravel().tolist()
    files = _files(found)
    assert {"predictions.npz", "result.json", "test.table.json"} <= files.keys()
    pictures = {Path(name).stem: path for name, path in files.items() if name.startswith("pictures/")}
    assert pictures.keys() == {"curves", "confusion", "reliability"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
    assert run_trial(spec) == "skipped" and len(offline_runs(tmp_path / "results")) == 1
    assert capsys.readouterr().err == ""
    # Under an agent a finished trial is told again; what cannot be drawn costs a line and no more.
    with (spec.folder / "metrics.jsonl").open("a") as file:
        file.write("{")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert run_trial(spec) == "skipped"
    files = _files(offline_runs(tmp_path / "results")[-1])
    assert "pictures/confusion.png" in files and "pictures/curves.png" not in files
    (line,) = capsys.readouterr().err.splitlines()
    assert "W&B: the artifact is without curves (UserError: " in line


def _files(found: dict[str, Any]) -> dict[str, Path]:
    (artifact,) = (each for each in found["artifacts"] if each.type == "predictions")
    return {each.path: Path(each.local_path) for each in artifact.manifest.contents}


def test_a_cached_stage_and_a_resumed_trial_are_told_whole(make_spec: Any, short: Any, tmp_path: Path) -> None:
    from ltbench.benchmarks.training.display import TrialDisplay

    assert run_trial(make_spec("crt", protocol=short)) == "done"
    spec = replace(make_spec("lws", protocol=short), wandb="offline")

    def interrupted(self: TrialDisplay, report: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialDisplay, "epoch", interrupted)
        run_trial(spec)
    assert run_trial(spec) == "done"
    assert read_json(spec.folder / "result.json")["cost"]["stages"][0]["cached"]
    # The interrupted attempt left a run of the same id, without an end or with an end that says so.
    *others, found = offline_runs(tmp_path / "results")
    _assert_mirrored(found, spec)
    assert all(each["exit"] in (None, 1) for each in others)
    assert {each["run"].run_id for each in others if "run" in each} <= {found["run"].run_id}


def test_a_trial_without_a_server_is_as_one_without_wandb(
    make_spec: Any, short: Any, numbers_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    untracked = make_spec("ce", out=tmp_path / "untracked", protocol=short)
    run_trial(untracked)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    spec = replace(make_spec("ce", protocol=short), wandb="online")
    assert run_trial(spec) == "done"
    assert numbers_of(spec) == numbers_of(untracked)
    (line,) = capsys.readouterr().err.splitlines()
    assert "W&B: http://127.0.0.1:9 does not answer; `wandb sync " in line
    _assert_mirrored(*offline_runs(tmp_path / "results"), spec)


# A process that does for a trial what a trainer does, without its imports: rows, then the result.
PROGRAM = """
import pathlib, shutil, sys, time, types
from ltbench.benchmarks.cli.command import guarded
from ltbench.benchmarks.training import wandb_mirror

source, case = pathlib.Path(sys.argv[1]), sys.argv[2]
folder = pathlib.Path(case, "setting", "ce-12345678", "trial0")
wandb_mirror.END_SECONDS = 1 if case == "late" else 60
if case != "recovers":
    wandb_mirror._SETTINGS |= {"WANDB_INIT_TIMEOUT": "3", "WANDB_FINISH_TIMEOUT": "3"}
spec = types.SimpleNamespace(wandb="online", wandb_artifacts=False, folder=folder)
say = lambda *values: None
shown = types.SimpleNamespace(stage=say, epoch=say, line=lambda text: print(text, file=sys.stderr, flush=True))

def trial():
    with wandb_mirror.mirrored(spec, shown) as display:
        print(display._mirror._process.pid, flush=True)
        shutil.copy(source / "config.json", folder)
        for line in (source / "metrics.jsonl").read_text().splitlines(keepends=True):
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(line)
            display.epoch(None)
        if case.startswith("SIG"):
            time.sleep(60)
        for name in ("predictions.npz", "result.json"):
            shutil.copy(source / name, folder)
    return 0

folder.mkdir(parents=True)
sys.exit(guarded(trial))
"""
CASES = {  # where the server stops to answer, or with what it answers; what is told
    "recovers": (WandbServer(codes=(500, 200)), None),
    "broken": (WandbServer(codes=(500,)), " does not answer; `wandb sync "),
    "refused": (WandbServer(codes=(401,)), "`wandb sync "),
    "agent": (WandbServer(hangs_at=""), "`wandb sync "),
    "end": (WandbServer(hangs_at='"exitcode"'), "TimeoutError: Timed out finishing run.; `wandb sync "),
    "late": (WandbServer(hangs_at="file_stream"), "no answer within 1 s; "),
    "SIGTERM": (WandbServer(hangs_at="file_stream"), ""),
    "SIGKILL": (WandbServer(hangs_at="file_stream"), None),
}


def test_real_wandb_failing_anywhere_costs_a_line_and_leaves_no_process(
    make_spec: Any, short: Any, tmp_path: Path
) -> None:
    spec = make_spec("ce", protocol=short)
    run_trial(spec)
    with contextlib.ExitStack() as stack:
        processes = {}
        for case, (server, _) in CASES.items():
            variables = {"WANDB_BASE_URL": stack.enter_context(serving(server)), "WANDB_API_KEY": "0" * 40}
            variables |= {"WANDB_SWEEP_ID": "abc"} if case == "agent" else {}
            command = [sys.executable, "-c", PROGRAM, str(spec.folder), case]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes[case] = subprocess.Popen(command, env=os.environ | variables, cwd=tmp_path, **pipes)
            stack.callback(processes[case].kill)
        mirrors = [int(process.stdout.readline()) for process in processes.values()]
        for name in ("SIGTERM", "SIGKILL"):
            _wait(lambda server=CASES[name][0]: "file_stream" in str(server.requests))
            processes[name].send_signal(getattr(signal, name))
        errors = {case: process.communicate(timeout=60)[1].splitlines() for case, process in processes.items()}
        _wait(lambda: not any(_runs(mirror) for mirror in mirrors))
    codes = {case: process.returncode for case, process in processes.items()}
    assert codes == {**dict.fromkeys(CASES, 0), "SIGTERM": 143, "SIGKILL": -9}
    assert errors["SIGTERM"][1:] == ["", "terminated"]
    for case, (_, told) in CASES.items():
        lines = errors[case][:1] if case == "SIGTERM" else errors[case]
        assert len(lines) == (told is not None), case
        assert all(line.startswith("W&B: ") and told in line and "the records are kept in " in line for line in lines)
    assert [_ours(row) for row in CASES["recovers"][0].history()][:-1] == _expected_history(spec)


def _runs(mirror: int) -> bool:
    words = subprocess.check_output(["ps", "-A", "-o", "pid,args"], text=True).splitlines()
    return any(line.split()[0] == str(mirror) or line.endswith(f"--pid {mirror}") for line in words)


def _wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_cannot_work_is_refused_before_training(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    def refused(*words: str) -> str:
        assert run.main(["--dataset", "synthetic", "--method", "ce", *words, "--out", str(tmp_path / "results")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and not (tmp_path / "results").exists()
        return line

    assert "needs --wandb online or offline" in refused("--wandb-artifacts")
    assert "did you mean 'online'" in refused("--wandb", "onlin")
    assert "no W&B key; run `wandb login`" in refused("--wandb", "online")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in refused("--wandb", "offline")


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [("api.wandb.ai", None, True), ("my.host", "https://my.host", True), ("other", "https://my.host", False)],
)
def test_a_stored_key_is_found(machine: str, server: str | None, known: bool, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(f"machine {machine} login user password {'0' * 40}\n")
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    if known:
        wandb_mirror.require("online")
    else:
        with pytest.raises(UserError, match="no W&B key"):
            wandb_mirror.require("online")


@pytest.mark.parametrize("metric", SELECTION_METRICS)
def test_the_live_score_is_the_metric_that_selects(metric: str) -> None:
    values = {"val_recall": (0.5, float("nan")), "val_f1": (0.25, 0.5), "val_top1": 0.125, "metric": metric}
    report = EpochReport("train", 0, {}, 1, 2, 0.5, **values)  # type: ignore[arg-type]
    assert history_row(plain(asdict(report)), 0, ["a", "b"])["val/score"] == report.score


def test_long_names_keep_within_the_limits_of_wandb() -> None:
    config = {"method": "ce", "ratio": 20.0, "trial": 0}
    far, near = (Path("out") / ("d" * length) / "ce-12345678" / "trial0" for length in (150, 151))
    told = [run_identity(folder, config) for folder in (far, near, near.with_name("trial1"))]
    assert len({each["group"] for each in told}) == 2 and all(len(each["group"]) == 128 for each in told)
    assert len({each["id"] for each in told}) == 3
