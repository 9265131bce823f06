"""What the campaigns share: small results of their own, commands in this process or a forked one, and the last line."""

import argparse
import contextlib
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ltbench import methods, processes
from ltbench.benchmarks import leaderboard, report, run
from ltbench.benchmarks.executors import local  # noqa: F401  imported before the forks

SMALL = ["--dataset", "synthetic", "--ratio", "5", "--image-size", "16", "--n-max", "30", "--val-per-class", "4"]
SMALL += ["--test-per-class", "5", "--batch-size", "16", "--device", "cpu"]
_BEGAN, _LONGEST = time.monotonic(), 120  # seconds after which a run that does not end is ended


def options(description: str | None, default: int) -> argparse.Namespace:
    """Return what the command line asks for: `number` of attempts and the `seed` of their places."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--number", type=int, default=default, help=f"of attempts; default: {default}")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="ltbench-campaign-") as name:
        yield Path(name)


def trained(out: Path, *methods: str, epochs: int = 2) -> Path:
    """Train a trial of each method; return the results folder."""
    scale = ["--set", "anchor_scale=0.3"] if "flex" in methods else []
    arguments = [*SMALL, "--method", *methods, *scale, "--trials", "1", "--epochs", str(epochs), "--jobs", "1"]
    code, text = ended([*arguments, "--out", str(out)])
    if code:
        raise RuntimeError(text)
    return out


def called(main: object, arguments: Sequence[str]) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command's `main`; an exception that leaves it is code -1."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main(list(arguments))  # type: ignore[operator]
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Exception as error:  # that is what a campaign looks for
            return -1, out.getvalue(), f"{errors.getvalue()}\n{type(error).__name__}: {error}"
    return code, out.getvalue(), errors.getvalue()


def tables(results: Path) -> tuple[int, str, str]:
    """Return how all numbers of a results folder are printed."""
    return called(leaderboard.main, ["--results", str(results), "--format", "csv", "--table", "metrics"])


def page(results: Path, out: Path) -> tuple[int, str, str]:
    """Return how the report of a results folder is written."""
    return called(report.main, ["--results", str(results), "--out", str(out)])


def predictions(results: Path) -> dict[str, bytes]:
    """Return the bytes of all saved arrays of finished trials, by trial and name."""
    found = {}
    for path in sorted(results.glob("*/*/trial*/result.json")):
        with np.load(path.with_name("predictions.npz"), allow_pickle=False) as arrays:
            name = path.parent.relative_to(results)
            found |= {f"{name}/{array}": arrays[array].tobytes() for array in arrays.files}
    return found


def begun(arguments: Sequence[str], *, output: int, prepare: Callable[[], object] = lambda: None) -> int:
    """Fork a process that runs `ltbench run` in a session and group of its own; return its id.

    It starts with all modules imported, which is what a start costs, and its workers are forked from it. This process
    must have trained nothing: the threads of OpenMP do not survive a fork.

    Parameters
    ----------
    output : descriptor that its stdout and stderr go to
    prepare : called in the process before anything else
    """
    for name in methods.available():
        methods.registry.get(name)
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        processes._START_METHOD = "fork"
        processes._WorkerContext = type(multiprocessing.get_context("fork"))
        signal.alarm(_LONGEST)
        prepare()
        code = run.main(list(arguments))
    finally:
        os._exit(code)


def ended(arguments: Sequence[str], prepare: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Run `ltbench run` in a forked process; return its exit code and all that it printed."""
    reading, writing = os.pipe()
    process = begun(arguments, output=writing, prepare=prepare)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as printed:
        text = printed.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text


def verdict(attempts: int, faults: Sequence[str], goal: str) -> int:
    """Print the faults and what was reached; return the exit code."""
    for fault in faults:
        print(f"missed: {fault}")
    minutes = (time.monotonic() - _BEGAN) / 60
    print(f"{attempts} attempts, {len(faults)} faults, {minutes:.1f} minutes; goal: {goal}")
    return 1 if faults else 0
