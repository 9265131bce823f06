"""Weights & Biases as a mirror of the records: one run a trial, fed from its own files, never in the way of training.

The mirror reads `config.json`, `metrics.jsonl` and `result.json`, so that a resumed trial and a stage that comes from
the cache are told whole. All W&B calls of a trial are made by one background thread; training never waits for them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import netrc
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ltbench.benchmarks.cli.command import GIVEN_UP
from ltbench.errors import UserError

if TYPE_CHECKING:
    from ltbench.benchmarks.training.display import Display
    from ltbench.benchmarks.training.trial_spec import TrialSpec
    from ltbench.methods.base import EpochReport

MODES = ("online", "offline", "disabled")
PROJECT = "ltbench"
SCORE = "val/score"

_INIT_SECONDS, _FINISH_SECONDS = 45, 45
_CLOSE_SECONDS, _AGAIN_SECONDS, _INTERRUPTED_SECONDS = 100.0, 10.0, 5.0
_GROUP_LENGTH, _TAG_LENGTH = 128, 64  # W&B refuses longer ones
_SETTINGS = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "finish_timeout": _FINISH_SECONDS,
    "finish_timeout_raises": True,
    "init_timeout": _INIT_SECONDS,
    "login_timeout": 1,
    "reinit": "create_new",
    "save_code": False,
    "show_errors": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_service_wait": _INIT_SECONDS,
}


# Read by wandb once, from the environment alone: it prints which key it found, whatever its settings say, and its own
# telemetry has held an exiting process for half a minute where the server does not answer.
_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def require(mode: str) -> None:
    """Refuse a mode that cannot work here; asks nothing and waits for nothing.

    Raises
    ------
    UserError : no package wandb, or online without a key
    """
    if mode == "disabled":
        return
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"--wandb {mode} needs the package wandb ({error}); pip install wandb") from error
    if not hasattr(wandb, "init"):  # a folder of this name, where W&B keeps its files, imports as well
        raise UserError(f"--wandb {mode} needs the package wandb; what is imported is a folder; pip install wandb")
    if mode == "online" and not _has_key():
        advice = "run `wandb login`, set WANDB_API_KEY, or use --wandb offline"
        raise UserError(f"--wandb online finds no W&B key; {advice}")


def _has_key() -> bool:
    """Return whether a key is set or stored, in the places where W&B looks."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            hosts = netrc.netrc(path).hosts
        except (OSError, netrc.NetrcParseError):
            continue
        server = os.environ.get("WANDB_BASE_URL")
        if server:
            return urlsplit(server).netloc in hosts
        # `wandb login` writes the login "user", also for a server of one's own that its settings name.
        return "api.wandb.ai" in hosts or any(entry[0] == "user" for entry in hosts.values())
    return False


@contextlib.contextmanager
def tracked(spec: TrialSpec, display: Display) -> Iterator[Display]:
    """Yield the display of a trial, which also feeds W&B where that is asked for; wait for W&B at the end, bounded."""
    if spec.wandb == "disabled":
        yield display
        return
    mirror = Mirror(spec, display.line)
    try:
        yield _TrackedDisplay(display, mirror)
        mirror.draw()
    except Exception:
        mirror.close(1, _patience())
        raise
    except BaseException:
        mirror.close(1, _INTERRUPTED_SECONDS)
        raise
    mirror.close(0, _patience())


def repeat_in_sweep(spec: TrialSpec, tell: Callable[[str], None]) -> None:
    """Mirror a trial that was done before, where a W&B agent waits for its score; nothing elsewhere."""
    if spec.wandb != "disabled" and os.environ.get("WANDB_SWEEP_ID"):
        mirror = Mirror(spec, tell)
        mirror.draw()
        mirror.close(0, _patience())


@dataclass
class _Experience:
    """What this process has seen of W&B.

    Attributes
    ----------
    failed : whether the latest mirror did
    """

    failed: bool = False


@functools.cache
def _experience() -> _Experience:
    return _Experience()


def _patience() -> float:
    """Return how long a trial waits for W&B at its end: in an outage one trial pays the full time, not each of them."""
    return _AGAIN_SECONDS if _experience().failed else _CLOSE_SECONDS


class _TrackedDisplay:
    """Passes everything on to a display and wakes the mirror."""

    def __init__(self, display: Display, mirror: Mirror) -> None:
        self._display, self._mirror = display, mirror

    def stage(self, name: str, epochs: int, done: int) -> None:
        self._display.stage(name, epochs, done)
        self._mirror.look()

    def epoch(self, report: EpochReport) -> None:
        self._display.epoch(report)
        self._mirror.look()

    def line(self, text: str) -> None:
        self._display.line(text)


class Mirror:
    """One trial's W&B run.

    The first failure of W&B, of whatever kind, is told in one line, and nothing more is sent.

    Parameters
    ----------
    spec : of the trial
    tell : prints a line
    """

    def __init__(self, spec: TrialSpec, tell: Callable[[str], None]) -> None:
        self._spec, self._tell = spec, tell
        self._run: Any = None
        self._classes: Sequence[str] = spec.setting["class_names"]
        self._pictures: dict[str, bytes] = {}
        self._logged = 0
        self._failed, self._telling = False, threading.Lock()
        self._requests: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Say that there may be new rows; returns at once."""
        self._requests.put(None)

    def draw(self) -> None:
        """Draw the finished trial's pictures where an artifact is to hold them; each that fails is told in one line.

        Not by the thread: drawing is no waiting for W&B, and matplotlib's settings are those of the whole process.
        """
        if self._failed or not self._spec.wandb_artifacts:
            return
        from ltbench.benchmarks.analysis.records import Record, read_result
        from ltbench.benchmarks.figures import trial_pictures
        from ltbench.benchmarks.plots.style import png_of

        with self._told_if_missing("pictures"):
            record = Record(self._spec.folder, read_result(self._spec.folder / "result.json"))
            for picture in trial_pictures(record):
                with self._told_if_missing(picture.kind):
                    self._pictures[picture.kind] = png_of(picture.draw())

    @contextlib.contextmanager
    def _told_if_missing(self, what: str) -> Iterator[None]:
        """Let an error within the block cost the artifact a part and the user a line, nothing else."""
        try:
            yield
        except Exception as error:
            self._tell(f"W&B: the artifact is without {what}; {_reason(error)}")

    def close(self, exit_code: int, patience: float) -> None:
        """Send what is left and end the run; wait for that at most `patience` seconds."""
        self._requests.put(exit_code)
        try:
            self._thread.join(patience)
        finally:  # a second Ctrl-C ends the waiting, not what must follow it
            if self._thread.is_alive():
                self._fail(f"no answer within {patience:g} s")
            if self._failed:
                end_service()
            if self._thread.is_alive():
                self._thread.name = GIVEN_UP
            _experience().failed = self._failed

    def _serve(self) -> None:
        # W&B is a mirror: whatever it raises, here and nowhere else, must not reach the trial. SystemExit too, which
        # parts of wandb raise.
        try:
            exit_code = None
            while exit_code is None and not self._failed:
                exit_code = self._requests.get()
                self._send_rows()
            if self._run is not None and not self._failed:
                self._send_result()
                self._run.finish(exit_code=exit_code)
                _flush()
        except (Exception, SystemExit) as error:
            self._fail(_reason(error))
            with contextlib.suppress(Exception, SystemExit):
                if self._run is not None:
                    self._run.finish(exit_code=1)

    def _fail(self, reason: str) -> None:
        with self._telling:
            told, self._failed = self._failed, True
        if not told:
            self._tell(f"W&B: {reason}; results are kept in {self._spec.folder}")

    def _send_rows(self) -> None:
        """Log the epochs that `metrics.jsonl` has and W&B has not; the first call begins the run."""
        rows = _rows(self._spec.folder / "metrics.jsonl")
        if self._run is None and (rows or (self._spec.folder / "result.json").exists()):
            self._run = _begin(self._spec)
        for row in rows[self._logged :]:
            if self._failed:  # given up meanwhile
                return
            self._run.log(history_row(row, self._logged, self._classes))
            self._logged += 1

    def _send_result(self) -> None:
        path = self._spec.folder / "result.json"
        if not path.exists():
            return
        result = json.loads(path.read_text(encoding="utf-8"))
        self._run.summary.update(summary_of(result))
        if self._spec.wandb_artifacts:
            self._run.log_artifact(_artifact(self._spec, self._run.id, self._pictures))


def _reason(error: BaseException) -> str:
    """Return an error in one line."""
    first_line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def history_row(row: Mapping[str, Any], number: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return what W&B gets of a line of `metrics.jsonl`: `epoch` counts over all stages, None and NaN are left out.

    Parameters
    ----------
    row : the line
    number : of the line, from 0
    classes : their names
    """
    sent: dict[str, Any] = {"epoch": number, "stage": row["stage"], "stage_epoch": row["epoch"]}
    sent |= {name: row[name] for name in ("steps", "images", "seconds")}
    sent |= {f"train/{name}": value for name, value in row["terms"].items()}
    sent |= {"val/loss": row["val_loss"], "val/top1": row["val_top1"]}
    recall = dict(zip(classes, row["val_recall"] or (), strict=False))
    sent |= {f"val/recall/{name}": value for name, value in recall.items()}
    present = [value for value in recall.values() if value is not None]
    if present:
        sent[SCORE] = sum(present) / len(present)
    return {name: value for name, value in sent.items() if value is not None}


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the W&B summary of a `result.json`: test metrics, selection, cost; `val/score` is the selected epoch's."""
    flat: dict[str, Any] = {SCORE: result["selection"]["score"]}
    for part in ("test", "selection", "cost"):
        flat |= dict(_flat(part, result[part], result["class_names"]))
    return flat


def _flat(prefix: str, value: Any, classes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield numbers and texts by path; lists of one value a class by class name, stages by theirs."""
    if isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value):
        value = {item["name"]: {key: own for key, own in item.items() if key != "name"} for item in value}
    elif isinstance(value, list) and len(value) == len(classes):
        value = dict(zip(classes, value, strict=True))
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, item in value.items():
        yield from _flat(f"{prefix}/{name}", item, classes)


def run_identity(spec: TrialSpec) -> dict[str, str]:
    """Return id, name, group and job type of a trial's run; the same trial has the same ones everywhere."""
    setting, method, trial = spec.folder.parts[-3:]
    return {
        "id": hashlib.sha256(f"{setting}/{method}/{trial}".encode()).hexdigest()[:24],
        "name": f"{spec.method}-r{spec.setting['ratio']:g}-s{spec.trial}",
        "group": _shortened(f"{setting}/{method}", _GROUP_LENGTH),
        "job_type": "train",
    }


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _begin(spec: TrialSpec) -> Any:
    """Start the W&B run of a trial, with its files under the results folder."""
    results = spec.folder.parents[2].absolute()
    folders = {f"WANDB_{name}_DIR": str(results / "wandb" / name.lower()) for name in ("CACHE", "DATA", "ARTIFACT")}
    set_defaults(folders | _QUIET)
    (results / "wandb").mkdir(exist_ok=True)
    import wandb

    config = json.loads((spec.folder / "config.json").read_text(encoding="utf-8"))
    tags = (f"split {spec.split_digest[:12]}", f"code {config['code_version']}", f"preset {spec.protocol.preset}")
    known = getattr(wandb.Settings, "model_fields", _SETTINGS)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        **run_identity(spec),
        tags=[_shortened(tag, _TAG_LENGTH) for tag in tags],
        config=config,
        dir=str(results),
        mode=spec.wandb,
        settings=wandb.Settings(**{name: value for name, value in _SETTINGS.items() if name in known}),
    )
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch")
    return run


def set_defaults(variables: Mapping[str, str] = _QUIET) -> None:
    """Set environment variables that are not set."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a `metrics.jsonl`."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def _artifact(spec: TrialSpec, run_id: str, pictures: Mapping[str, bytes]) -> Any:
    """Return an artifact with result and predictions of a trial, its pictures (PNG), and a table of test predictions.

    A picture is written to a temporary folder of the artifact's own.
    """
    import numpy as np
    import wandb

    artifact = wandb.Artifact(f"predictions-{run_id}", type="predictions")
    for name in ("result.json", "predictions.npz"):
        artifact.add_file(str(spec.folder / name), name=name)
    for name, png in pictures.items():
        with artifact.new_file(f"pictures/{name}.png", mode="wb") as file:
            file.write(png)
    classes = spec.setting["class_names"]
    with np.load(spec.folder / "predictions.npz", allow_pickle=False) as arrays:
        ids, labels, logits = (arrays[f"test_{name}"] for name in ("ids", "labels", "logits"))
    columns = ["id", "label", "predicted", *(f"logit/{name}" for name in classes)]
    data = [
        [str(name), classes[label], classes[int(row.argmax())], *row.tolist()]
        for name, label, row in zip(ids, labels, logits, strict=True)
    ]
    artifact.add(wandb.Table(columns=columns, data=data), "test")
    return artifact


def _flush() -> None:
    """Wait until W&B's own process has written everything and ended.

    The end of a run only announces it: a worker process that is stopped afterwards would take the last records along.
    """
    import wandb

    wandb.teardown()


def end_service() -> None:
    """Stop W&B's own process, which does not answer: at exit wandb would wait for it without end.

    There is no public way; where wandb keeps it elsewhere, nothing happens. The next trial starts another.
    """
    with contextlib.suppress(Exception):
        from wandb.sdk import wandb_setup

        setup = wandb_setup.singleton()
        connection = setup._connection
        if connection is not None and connection.owns_service:
            connection._cleanup()
            connection._proc._process.kill()
            setup._connection = None
            os.environ.pop("WANDB_SERVICE", None)
