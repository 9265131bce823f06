"""What the campaigns share: small results of their own, commands in this process or a forked one, and the last line."""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from ltbench import methods, processes
from ltbench.benchmarks import leaderboard, run
from ltbench.benchmarks.executors import local  # noqa: F401  imported before the forks

SMALL = ["--dataset", "synthetic", "--ratio", "5", "--image-size", "16", "--n-max", "30", "--val-per-class", "4"]
SMALL += ["--test-per-class", "5", "--batch-size", "16", "--device", "cpu", "--jobs", "1"]
SMALL += ["--checkpoint-seconds", "0"]
FLEX = ["--set", "anchor_scale=0.3"]
_LONGEST = 120  # seconds after which a run that does not end is ended
Body = Callable[[Path, random.Random, int], tuple[int, list[str]]]


def campaign(description: str | None, number: int, goal: str, body: Body) -> NoReturn:
    """Run a campaign from the command line: print its faults, and last what was reached; exit with 1 if any is there.

    `body` takes a folder that is deleted afterwards, a generator and a number of attempts; it returns that and faults.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--number", type=int, default=number, help=f"of attempts; default: {number}")
    parser.add_argument("--seed", type=int, default=0)
    wanted, began = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ltbench-campaign-") as folder:
        attempts, faults = body(Path(folder), random.Random(wanted.seed), wanted.number)
    minutes = (time.monotonic() - began) / 60
    print("".join(f"missed: {fault}\n" for fault in faults), end="")
    print(f"{attempts} attempts, {len(faults)} faults, {minutes:.1f} minutes; goal: {goal}")
    sys.exit(1 if faults else 0)


def trained(arguments: Sequence[str], out: Path) -> Path:
    """Run a whole command that must succeed; return its results folder."""
    code, text = ended(arguments, out)
    if code:
        raise RuntimeError(text)
    return out


def called(main: Callable[[list[str]], int], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command's `main`; an exception that leaves it is code -1."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main([str(each) for each in arguments])
        except (Exception, SystemExit) as error:  # that is what a campaign looks for
            return -1, out.getvalue(), f"{errors.getvalue()}\n{type(error).__name__}: {error}"
    return code, out.getvalue(), errors.getvalue()


def tables(results: Path) -> tuple[int, str, str]:
    """Return how all numbers of a results folder are printed."""
    return called(leaderboard.main, "--results", results, "--format", "csv", "--table", "metrics")


def predictions(results: Path) -> dict[str, bytes]:
    """Return the bytes of all saved arrays of finished trials, by trial and name."""
    found = {}
    for path in sorted(results.glob("*/*/trial*/result.json")):
        with np.load(path.with_name("predictions.npz"), allow_pickle=False) as arrays:
            found |= {f"{path.parent.relative_to(results)}/{name}": arrays[name].tobytes() for name in arrays.files}
    return found


def begun(arguments: Sequence[str], out: Path, output: int, prepare: Callable[[], object] = lambda: None) -> int:
    """Fork a process that runs `ltbench run` in a session of its own, prints to a descriptor; return its id.

    It starts with all modules imported, which is what a start costs, and its workers are forked from it. This process
    must have trained nothing: the threads of OpenMP do not survive a fork.
    """
    for name in methods.available():
        methods.registry.get(name)
    if process := os.fork():
        return process
    code = 70
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        processes._START_METHOD, processes._WorkerContext = "fork", type(multiprocessing.get_context("fork"))
        signal.alarm(_LONGEST)
        prepare()
        code = run.main([*arguments, "--out", str(out)])
    finally:
        os._exit(code)


def ended(arguments: Sequence[str], out: Path, prepare: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Run `ltbench run` in a forked process; return its exit code and all that it printed."""
    reading, writing = os.pipe()
    process = begun(arguments, out, writing, prepare)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as printed:
        text = printed.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text
