"""Weights & Biases: what is mirrored equals the records, and its failures cost a trial nothing."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ltbench.benchmarks import run
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.trial import run_trial
from ltbench.benchmarks.training.trial_spec import TrialSpec, configure_methods, trial_specs
from ltbench.errors import UserError

SETTINGS = {"method": "ce", "dataset": "synthetic", "ratio": 5, "epochs": 2, "image-size": 16, "n-max": 30, "jobs": 1}
SETTINGS |= {"val-per-class": 3, "test-per-class": 4, "batch-size": 16, "precision": "fp32"}
TINY = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
VARIABLES = "API_KEY IDENTITY_TOKEN_FILE BASE_URL MODE PROJECT SWEEP_ID RUN_ID SERVICE CACHE_DIR DATA_DIR ARTIFACT_DIR"
VARIABLES += " SILENT ERROR_REPORTING"


@pytest.fixture(autouse=True)
def _no_wandb_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in VARIABLES.split():
        # Set first, so that what a test leaves behind goes too.
        monkeypatch.setenv(f"WANDB_{name}", "")
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    # Its list of fonts would go to the home of whichever test draws first.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.getbasetemp() / "matplotlib"))
    wandb_mirror._experience.cache_clear()


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file: a header of 7 bytes, then 32 KiB blocks of LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _read(results: Path) -> list[dict[str, Any]]:
    """Return the offline runs under a results folder, oldest first."""
    runs = []
    for path in sorted(results.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "exit": None, "artifacts": []}
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["run"] = record.run
                found["config"] |= _values(record.run.config.update)
            elif kind == "history":
                found["history"].append(_values(record.history.item))
            elif kind == "summary":
                found["summary"] |= _values(record.summary.update)
            elif kind == "exit":
                found["exit"] = record.exit.exit_code
            elif kind == "artifact":
                found["artifacts"].append(record.artifact)
        runs.append(found)
    return runs


def _read_by_wandb(results: Path) -> dict[str, Any]:
    """Return the one offline run under a results folder as W&B's own command reads it."""
    (path,) = results.glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    environment = os.environ | {"WANDB_ERROR_REPORTING": "false", "WANDB_CONFIG_DIR": str(results.parent / "home")}
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment).stdout
    records = [json.loads(line) for line in lines.splitlines()]
    of = {kind: [record[kind] for record in records if record["type"] == kind] for kind in ("run", "history", "exit")}
    found = {"history": [row["item"] for row in of["history"]], "exit": of["exit"][0].get("exit_code", 0)}
    found |= {"config": {}, "summary": {}}
    for run_record in of["run"]:
        found["config"] |= run_record["config"]["update"]
    for record in records:
        if record["type"] == "summary":
            found["summary"] |= record["summary"]["update"]
    return found


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _expected_history(spec: TrialSpec) -> list[dict[str, Any]]:
    """Return what W&B must hold of `metrics.jsonl`, written down here independently of the code under test."""
    classes, expected = spec.setting["class_names"], []
    for number, line in enumerate((spec.folder / "metrics.jsonl").read_text().splitlines()):
        row = json.loads(line)
        wanted = {"epoch": number, "stage": row["stage"], "stage_epoch": row["epoch"]}
        wanted |= {name: row[name] for name in ("steps", "images", "seconds")}
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
    result, expected = _json(spec.folder / "result.json"), {}
    for row in _expected_history(spec):
        expected |= row
    expected["val/score"] = result["selection"]["score"]
    cost = {**result["cost"], "stages": {stage.pop("name"): stage for stage in result["cost"]["stages"]}}
    for part, values in {"test": result["test"], "selection": result["selection"], "cost": cost}.items():
        expected |= _leaves(part, values, result["class_names"])
    return expected


def _ours(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without those that W&B adds."""
    return {name: value for name, value in values.items() if name[0] != "_"}


def _assert_mirrored(found: dict[str, Any], spec: TrialSpec) -> None:
    assert [_ours(row) for row in found["history"]] == _expected_history(spec)
    assert [row["_step"] for row in found["history"]] == list(range(len(found["history"])))
    assert _ours(found["config"]) == _json(spec.folder / "config.json")
    assert _ours(found["summary"]) == _expected_summary(spec)
    assert found["exit"] == 0


def test_an_offline_run_equals_the_records(make_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.chdir(tmp_path)
    spec = replace(make_spec("crt"), wandb="offline", wandb_artifacts=True)
    assert run_trial(spec) == "done"
    (found,) = _read(tmp_path / "results")
    _assert_mirrored(found, spec)
    _assert_mirrored(_read_by_wandb(tmp_path / "results"), spec)
    assert {row["stage"] for row in found["history"]} == {"erm", "classifier"}
    told = found["run"]
    assert told.project == "ltbench" and told.job_type == "train" and told.display_name == "crt-r20-s0"
    assert told.run_group == "/".join(spec.folder.parts[-3:-1])
    assert told.run_id == wandb_mirror.run_identity(spec)["id"] and len(told.run_id) <= 64
    assert f"split {spec.split_digest[:12]}" in told.tags and "preset quick" in told.tags
    (artifact,) = found["artifacts"]
    assert {"predictions.npz", "result.json", "test.table.json"} <= {each.path for each in artifact.manifest.contents}
    assert _pictures(artifact) == {"curves", "confusion", "reliability"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
    # The stage that crt left in the cache reports no epoch, and is told all the same.
    second = replace(make_spec("lws"), wandb="offline")
    assert run_trial(second) == "done"
    assert _json(second.folder / "result.json")["cost"]["stages"][0]["cached"]
    _assert_mirrored(_read(tmp_path / "results")[-1], second)
    assert run_trial(second) == "skipped"
    assert len(_read(tmp_path / "results")) == 2
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert run_trial(second) == "skipped"
    assert len(_read(tmp_path / "results")) == 3


def _pictures(artifact: Any) -> set[str]:
    """Return the names of an artifact's pictures, all of which are whole PNG files."""
    paths = {each.path: Path(each.local_path) for each in artifact.manifest.contents if each.path.endswith(".png")}
    for path in paths.values():
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 100
    assert {Path(name).parent.as_posix() for name in paths} == {"pictures"}
    return {Path(name).stem for name in paths}


def test_a_picture_that_cannot_be_drawn_costs_a_line_and_not_the_artifact(
    make_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(make_spec("flex", pretrain="none"), wandb="offline", wandb_artifacts=True)
    assert run_trial(spec) == "done"
    assert capsys.readouterr().err == ""
    (artifact,) = _read(tmp_path / "results")[-1]["artifacts"]
    assert _pictures(artifact) == {"curves", "confusion", "reliability", "story"}
    with (spec.folder / "metrics.jsonl").open("a") as file:
        file.write("{")  # no line that is whole: W&B is told of those before it, the curves are of all
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert run_trial(spec) == "skipped"
    (artifact,) = _read(tmp_path / "results")[-1]["artifacts"]
    assert _pictures(artifact) == {"confusion", "reliability"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("metrics.jsonl is not readable" in line for line in lines)
    assert "W&B: the artifact is without curves; UserError: " in lines[0]
    assert "W&B: the artifact is without story; UserError: " in lines[1]


def test_a_resumed_trial_is_told_from_its_start(make_spec: Any, tmp_path: Path) -> None:
    from ltbench.benchmarks.training.display import TrialDisplay

    spec = replace(make_spec("ce"), wandb="offline")
    epoch, seen = TrialDisplay.epoch, []

    def killed(self: TrialDisplay, report: Any) -> None:
        seen.append(report)
        if len(seen) == 3:
            raise KeyboardInterrupt
        epoch(self, report)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialDisplay, "epoch", killed)
        run_trial(spec)
    assert run_trial(spec) == "done"
    # The killed attempt left a run of the same id, without an end or with an end that says so.
    (found,) = (found for found in _read(tmp_path / "results") if found["exit"] == 0)
    _assert_mirrored(found, spec)
    assert len({found["run"].run_id for found in _read(tmp_path / "results") if "run" in found}) == 1


class _FakeRun:
    """Stands for a W&B run that fails or blocks at one of its calls."""

    def __init__(self, where: str, block: threading.Event | None) -> None:
        self._where, self._block, self._logs = where, block, 0
        self.id, self.summary = "fake", types.SimpleNamespace(update=lambda values: self.at("summary"))

    def at(self, where: str) -> None:
        if where == self._where:
            if self._block is not None:
                self._block.wait(60)
            raise SystemExit(1) if where == "log 1" else OSError(f"{where} is broken\nand more")

    def log(self, row: Any) -> None:
        self._logs += 1
        self.at(f"log {self._logs}")

    def define_metric(self, *names: Any, **more: Any) -> None: ...

    def finish(self, exit_code: int = 0) -> None:
        self.at("finish")


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a W&B in place that fails, or blocks, at init, a log, the summary or its end."""

    def put(where: str, block: threading.Event | None = None) -> None:
        fake, fake_run = types.ModuleType("wandb"), _FakeRun(where, block)

        def init(**options: Any) -> _FakeRun:
            fake_run.at("init")
            return fake_run

        fake.init, fake.Settings = init, lambda **options: options
        fake.teardown = lambda: fake_run.at("teardown")
        monkeypatch.setitem(sys.modules, "wandb", fake)

    return put


@pytest.fixture(scope="module")
def untracked_numbers(tiny_dataset: Any, tiny_protocol: Any, numbers_of: Any, tmp_path_factory: Any) -> Any:
    """Return the numbers of the same trial without W&B."""
    (configured,) = configure_methods(["ce"], {}, tiny_protocol, [tiny_dataset])
    (spec,) = trial_specs(tiny_dataset, configured, tiny_protocol, trials=1, out=tmp_path_factory.mktemp("untracked"))
    spec.folder.mkdir(parents=True)
    tiny_dataset.manifest.write(spec.folder.parent / "split.csv")
    run_trial(spec)
    return numbers_of(spec)


@pytest.mark.parametrize("where", ["init", "log 1", "log 3", "summary", "finish", "teardown"])
def test_a_failure_costs_one_line(
    where: str,
    fake_wandb: Any,
    make_spec: Any,
    numbers_of: Any,
    untracked_numbers: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_wandb(where)
    spec = replace(make_spec("ce"), wandb="offline")
    assert run_trial(spec) == "done"
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "W&B: " in line and line.endswith(f"results are kept in {spec.folder}")
    assert ("SystemExit: 1" if where == "log 1" else f"OSError: {where} is broken;") in line
    assert numbers_of(spec) == untracked_numbers


@pytest.mark.parametrize("where", ["init", "log 2", "teardown"])
def test_a_call_that_blocks_is_given_up(
    where: str,
    fake_wandb: Any,
    make_spec: Any,
    numbers_of: Any,
    untracked_numbers: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb_mirror, "_CLOSE_SECONDS", 0.5)
    block = threading.Event()
    fake_wandb(where, block)
    spec = replace(make_spec("ce"), wandb="online")
    started = time.monotonic()
    assert run_trial(spec) == "done"
    assert time.monotonic() - started < 50
    block.set()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"W&B: no answer within 0.5 s; results are kept in {spec.folder}" in line
    assert numbers_of(spec) == untracked_numbers


def test_in_an_outage_one_trial_waits_its_full_time_and_the_next_ones_little(
    fake_wandb: Any, make_spec: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_mirror, "_CLOSE_SECONDS", 0.6)
    monkeypatch.setattr(wandb_mirror, "_AGAIN_SECONDS", 0.2)
    block = threading.Event()
    for trial, waited in enumerate((0.6, 0.2, 0.2)):
        fake_wandb("init", block)
        assert run_trial(replace(make_spec("ce", trial=trial), wandb="online")) == "done"
        assert f"no answer within {waited} s" in capsys.readouterr().err
    block.set()
    fake_wandb("nowhere")
    assert run_trial(replace(make_spec("ce", trial=3), wandb="online")) == "done"
    assert "W&B" not in capsys.readouterr().err and wandb_mirror._patience() == 0.6


@dataclass
class _Server:
    """A W&B server that answers, or that from some request on takes requests and never answers.

    Attributes
    ----------
    hangs_at : part of the first request, of path or body, that gets no answer
    broken : whether everything is answered with an error
    requests : paths and bodies, as they came
    """

    hangs_at: str | None = None
    broken: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: str) -> tuple[int, Any]:
        self.requests.append((path, body))
        if self.hangs_at is not None and any(self.hangs_at in text for request in self.requests for text in request):
            self.released.wait(60)
        if self.broken:
            return 500, {"error": "broken"}
        project = {"id": "p", "name": "ltbench", "entity": {"id": "e", "name": "we"}}
        bucket = {"id": "b", "name": "r", "displayName": "r", "sweepName": "", "historyLineCount": 0}
        known = {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        known |= {"model": {**project, "bucket": None}, "serverInfo": {"features": []}}
        known |= {"viewer": {"id": "u", "username": "me", "entity": "we", "flags": "{}", "teams": {"edges": []}}}
        known |= {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        return 200, {"data": known} if "graphql" in path else {}


@contextlib.contextmanager
def _serving(server: _Server) -> Iterator[str]:
    """Yield the address at which a server listens."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = server.answer(self.path, body.decode(errors="replace"))
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(code)
                data = json.dumps(answer).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None: ...

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        server.released.set()
        listening.shutdown()
        listening.server_close()


# A process that does for two trials what a trainer does, without its imports: rows, then the result.
PROGRAM = """
import json, pathlib, shutil, sys, time, types
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.cli.command import guarded, leave

source, results, case = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
wandb_mirror._AGAIN_SECONDS, wandb_mirror._INTERRUPTED_SECONDS = 0.5, 0.5
wandb_mirror._SETTINGS |= {"init_timeout": 4 if "start" in case else 60}
wandb_mirror._SETTINGS |= {"finish_timeout": 60 if case == "answers" else 4}
config = json.loads((source / "config.json").read_text())
protocol = types.SimpleNamespace(preset="quick")
say = lambda *values: None
shown = types.SimpleNamespace(stage=say, epoch=say, line=lambda text: print(text, file=sys.stderr, flush=True))

def trial(number):
    folder = results / "setting" / "ce-12345678" / f"trial{number}"
    folder.mkdir(parents=True)
    shutil.copy(source / "config.json", folder)
    spec = types.SimpleNamespace(wandb="online", wandb_artifacts=False, folder=folder, method="ce", trial=number,
        setting=config, split_digest=config["split_digest"], protocol=protocol)
    with wandb_mirror.tracked(spec, shown) as display:
        for line in (source / "metrics.jsonl").read_text().splitlines(keepends=True):
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(line)
            display.epoch(None)
        if case == "terminated":
            print("training", flush=True)
            time.sleep(60)
        if case == "killed":
            while display._mirror._run is None:
                time.sleep(0.05)
            from wandb.sdk import wandb_setup
            wandb_setup.singleton()._connection._proc._process.kill()
        shutil.copy(source / "result.json", folder)
    return 0

leave(guarded(lambda: trial(0) + trial(1)))
"""
CASES: dict[str, dict[str, Any]] = {
    "answers": {},
    "unanswered at start": {"hangs_at": ""},
    "errors at start": {"broken": True},
    "unanswered in the middle": {"hangs_at": "file_stream"},
    "unanswered at the end": {"hangs_at": '"exitcode"'},
    "killed": {},
    "terminated": {"hangs_at": ""},
}


def test_real_wandb_failing_anywhere_costs_a_line_and_holds_no_exit(make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec("ce")
    run_trial(spec)
    servers = {case: _Server(**behaviour) for case, behaviour in CASES.items()}
    with contextlib.ExitStack() as stack:
        processes = {}
        for case, server in servers.items():
            address = stack.enter_context(_serving(server))
            environment = os.environ | {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "no_proxy": "*"}
            command = [sys.executable, "-c", PROGRAM, str(spec.folder), str(tmp_path / case), case]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes[case] = subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes)
            stack.callback(processes[case].kill)
        assert processes["terminated"].stdout.readline() == "training\n"
        processes["terminated"].send_signal(signal.SIGTERM)
        lines = {case: process.communicate(timeout=120)[1].splitlines() for case, process in processes.items()}
    codes = {case: process.returncode for case, process in processes.items()}
    assert codes == {**dict.fromkeys(CASES, 0), "terminated": 143}
    assert lines.pop("answers") == []
    first, *rest = lines.pop("terminated")
    assert "W&B: no answer within 0.5 s" in first and rest == ["", "terminated"]
    for case, (first, second) in lines.items():
        kept = (f"; results are kept in {tmp_path / case / 'setting' / 'ce-12345678' / f'trial{k}'}" for k in (0, 1))
        assert first.startswith("W&B: ") and first.endswith(next(kept)), case
        assert second.startswith("W&B: ") and second.endswith(next(kept)), case
    assert _received(servers["answers"]) == [row for _ in range(2) for row in _expected_history(spec)]


def _received(server: _Server) -> list[dict[str, Any]]:
    """Return the history rows that a server was sent, run after run."""
    streams = [json.loads(body)["files"] for path, body in server.requests if "file_stream" in path and "files" in body]
    history = [files["wandb-history.jsonl"]["content"] for files in streams if "wandb-history.jsonl" in files]
    return [_ours(json.loads(line)) for content in history for line in content]


def test_disabled_imports_no_wandb(make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run_trial(make_spec("ce")) == "done"
    # timm imports wandb where it is installed; none of our own files may.
    program = "import sys; import ltbench.benchmarks.training.wandb_mirror, ltbench.benchmarks.run; "
    program += "print({'wandb', 'matplotlib'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def _refused(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run.main([*TINY, *arguments, "--out", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and not (tmp_path / "results").exists()
    return line


def test_what_cannot_work_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "needs --wandb online or offline" in _refused(["--wandb-artifacts"], tmp_path, capsys)
    assert "did you mean 'online'" in _refused(["--wandb", "onlin"], tmp_path, capsys)
    assert "no W&B key; run `wandb login`" in _refused(["--wandb", "online"], tmp_path, capsys)
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    assert "is a folder" in _refused(["--wandb", "offline"], tmp_path, capsys)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in _refused(["--wandb", "offline"], tmp_path, capsys)


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [("api.wandb.ai", None, True), ("my.host", "https://my.host", True), ("other", "https://my.host", False)],
)
def test_a_stored_key_is_found(
    machine: str, server: str | None, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(f"machine {machine} login user password {'0' * 40}\n")
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    if known:
        wandb_mirror.require("online")
    else:
        with pytest.raises(UserError, match="no W&B key"):
            wandb_mirror.require("online")


def test_long_names_keep_within_the_limits_of_wandb(make_spec: Any) -> None:
    spec = make_spec("ce")
    far = replace(spec, folder=Path("out") / ("d" * 150) / "ce-12345678" / "trial0")
    near = replace(spec, folder=Path("out") / ("d" * 151) / "ce-12345678" / "trial0")
    groups = {wandb_mirror.run_identity(each)["group"] for each in (far, near)}
    assert len(groups) == 2 and all(len(group) == 128 for group in groups)
    assert (
        wandb_mirror.run_identity(far)["id"] != wandb_mirror.run_identity(replace(far, folder=far.folder / "x"))["id"]
    )


def test_only_the_trials_that_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--trial must be from 0" in _refused(["--trial", "-1"], tmp_path, capsys)
    assert "not allowed with" in _refused(["--trial", "1", "--trials", "2"], tmp_path, capsys)
    monkeypatch.setattr(run, "available_cores", lambda: 1)  # no processes for decoding
    assert run.main([*TINY, "--trial", "2", "0", "--epochs", "1", "--out", str(tmp_path / "results")]) == 0
    assert sorted(path.parent.name for path in tmp_path.rglob("result.json")) == ["trial0", "trial2"]
