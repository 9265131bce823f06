"""Weights & Biases as a mirror of the records: one run a trial, fed from its own files, never in the way of training.

All that concerns W&B is done by a process of its own, the program `wandb_run`. Training only wakes it; at its end a
trial waits for it a limited time and then stops it. A process that lost its trial sends what there is and ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import netrc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ltbench.errors import UserError

if TYPE_CHECKING:
    from ltbench.benchmarks.training.display import Display
    from ltbench.benchmarks.training.trial_spec import TrialSpec
    from ltbench.methods.stages import EpochReport

MODES = ("online", "offline", "disabled")
PROJECT = "ltbench"
SCORE = "val/score"

END_SECONDS, UNFINISHED_SECONDS = 60.0, 5.0
"""How long a trial waits for W&B, at most: at its end, and where it is interrupted or fails."""

_PROGRAM = "ltbench.benchmarks.training.wandb_run"
_SETTINGS = {
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_ERROR_REPORTING": "false",  # to the makers of wandb; holds the exit where nobody answers
    "WANDB_FINISH_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
    "WANDB_INIT_TIMEOUT": "20",
    "WANDB_SILENT": "true",
}


def require(mode: str) -> None:
    """Refuse a mode that cannot work here; asks nobody and imports nothing.

    Raises
    ------
    UserError : no package wandb, or online without a key
    """
    if mode == "disabled":
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # a folder of this name, where W&B keeps its files, is found as well
        raise UserError(f"--wandb {mode} needs the package wandb; pip install wandb")
    if mode == "online" and not _has_key():
        advice = "run `wandb login`, set WANDB_API_KEY, or use --wandb offline"
        raise UserError(f"--wandb online finds no W&B key; {advice}")


def _has_key() -> bool:
    """Return whether a key is set or stored, in the places where W&B looks."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    hosts: dict[str, tuple[str, str, str]] = {}
    for path in [Path(named)] if named else [Path.home() / "_netrc", Path.home() / ".netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):  # as good as none
            hosts |= netrc.netrc(path).hosts
    server = os.environ.get("WANDB_BASE_URL")
    if server:
        return urlsplit(server).netloc in hosts
    # `wandb login` writes the login "user", also for a server of one's own that its settings name.
    return "api.wandb.ai" in hosts or any(entry[0] == "user" for entry in hosts.values())


@contextlib.contextmanager
def mirrored(spec: TrialSpec, display: Display) -> Iterator[Display]:
    """Yield the display of a trial, which also wakes its mirror where W&B is asked for; wait for that at the end."""
    if spec.wandb == "disabled":
        yield display
        return
    folder = spec.folder.absolute()
    words = [str(folder), spec.wandb, *(["artifact"] if spec.wandb_artifacts else [])]
    try:
        mirror = _Process(["follow", *words], folder.parents[2] / "wandb")
    except OSError as error:
        display.line(f"W&B: no process for it ({error})")
        yield display
        return
    patience = UNFINISHED_SECONDS
    try:
        yield _WakingDisplay(display, mirror)
        patience = END_SECONDS
    finally:
        _, complaint = mirror.end(patience)
        if complaint:
            display.line(f"W&B: {complaint}; the records are kept in {spec.folder}")


def repeat_in_sweep(spec: TrialSpec, display: Display) -> None:
    """Mirror a trial that was done before, where a W&B agent waits for its score; nothing elsewhere."""
    if os.environ.get("WANDB_SWEEP_ID"):
        with mirrored(spec, display):
            pass


def register_sweep(definition: Mapping[str, Any], project: str) -> str:
    """Register a sweep; return its id.

    Raises
    ------
    UserError : a refusal, or no answer within a minute
    """
    with tempfile.TemporaryDirectory() as folder:
        code, text = _Process(["register", project, json.dumps(dict(definition))], Path(folder)).end(END_SECONDS)
    if code != 0:
        raise UserError(f"W&B did not register the sweep ({text}); its file is written")
    return text.split()[-1]


class _WakingDisplay:
    """Passes everything on to a display and wakes the mirror."""

    def __init__(self, display: Display, mirror: _Process) -> None:
        self._display, self._mirror = display, mirror

    def stage(self, name: str, epochs: int, done: int) -> None:
        self._display.stage(name, epochs, done)
        self._mirror.wake()

    def epoch(self, report: EpochReport) -> None:
        self._display.epoch(report)
        self._mirror.wake()

    def line(self, text: str) -> None:
        self._display.line(text)


class _Process:
    """The program `wandb_run`, in a session of its own: Ctrl-C does not reach it, and what it starts ends with it.

    Parameters
    ----------
    words : its arguments
    folder : where wandb may write
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        caches = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "ARTIFACT")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=folder,  # Python would look for modules where this process is
            env={**caches, **os.environ, **_SETTINGS, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # as PIPE says
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def wake(self) -> None:
        """Say that there may be something new."""
        with contextlib.suppress(OSError):  # it has ended, which is told at the end
            self._stdin.write(b"\n")

    def end(self, patience: float) -> tuple[int | None, str]:
        """Say that nothing more comes and wait at most `patience` seconds; return exit code and what was printed."""
        process = self._process
        try:
            self._stdin.close()
            code = process.wait(patience)
            # One read, not to the end of the pipe, which a process that wandb started may still hold open.
            text = os.read(self._stdout.fileno(), 2**16).decode().strip() if code in (0, 1) else ""
            return code, text or (f"its process ended with code {code}" if code else "")
        except subprocess.TimeoutExpired:
            return None, f"no answer within {patience:g} s"
        finally:  # a second Ctrl-C ends the waiting, not what must follow it
            if process.poll() is None:
                _kill(process)
            self._stdout.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its session, at once."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
