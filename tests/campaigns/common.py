"""What the campaigns share: small results of their own, commands run as a person runs them, and the last line."""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ltbench
from ltbench.benchmarks import leaderboard, report, run

ROOT = Path(ltbench.__file__).parent
SMALL = ["--dataset", "synthetic", "--ratio", "5", "--image-size", "16", "--n-max", "30", "--val-per-class", "4"]
SMALL += ["--test-per-class", "5", "--batch-size", "16", "--device", "cpu"]


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


def trained(out: Path, *, methods: Sequence[str] = ("ce", "rs"), trials: int = 1, epochs: int = 2) -> Path:
    """Train small trials; return the results folder."""
    arguments = [*SMALL, "--method", *methods, "--trials", str(trials), "--epochs", str(epochs), "--jobs", "1"]
    code, _, errors = called(run.main, [*arguments, "--out", str(out)])
    if code:
        raise RuntimeError(errors)
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


def process(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `ltbench` in a process and a group of its own."""
    command = [sys.executable, "-m", "ltbench", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload]


def verdict(attempts: int, faults: Sequence[str], goal: str) -> int:
    """Print the faults and what was reached; return the exit code."""
    for fault in faults:
        print(f"missed: {fault}")
    print(f"{attempts} attempts, {len(faults)} faults; goal: {goal}")
    return 1 if faults else 0
