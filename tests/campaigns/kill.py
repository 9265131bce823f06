"""A run that is killed at any moment and started again ends with the predictions of one that was not.

SIGKILL goes to the whole group of processes. Most runs are forked from this process, which has imported all modules, so
that a kill costs a second; of each round's kills one is of a command that was started from a shell.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import FLEX, SMALL, begun, campaign, ended, predictions, trained

MOMENTS = {
    "start": ("", 0.5),
    "shell": ("", 9.0),
    "decoding": ("cache/images/*/pixels.u8", 0.4),
    "epoch": ("*/*/trial*/journal/checkpoint.pt", 0.3),
    "between stages": ("*/*/trial*/journal/stage*.json", 0.05),
    "recording": ("*/*/trial*/predictions.npz*", 0.02),
    "deleting": ("*/*/discarded-*", 0.004),
}
"""Of each moment the files whose change is its sign, and the seconds after it, at most, at which the kill comes."""
ARGUMENTS = [*SMALL, "--method", "ce", "flex", *FLEX, "--epochs", "6", "--trials", "2"]


def seen(out: Path, pattern: str) -> set[tuple[str, int]]:
    """Return the files of a pattern, with their times."""
    found = set()
    for path in out.glob(pattern) if pattern else ():
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found.add((str(path), path.stat().st_mtime_ns))
    return found


def killed(process: int, out: Path, moment: str, rng: random.Random) -> bool:
    """Kill a group of processes at a moment; return whether it had not ended before."""
    pattern, delay = MOMENTS[moment]
    before, begins = seen(out, pattern), time.monotonic() if not pattern else None
    delay *= rng.random()
    while begins is None or time.monotonic() < begins + delay:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        if begins is None and seen(out, pattern) - before:
            begins = time.monotonic()
        time.sleep(0.001)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def from_shell(arguments: list[str], out: Path) -> int:
    """Start `ltbench run` as a person does; return the id of its process and group."""
    command = [sys.executable, "-m", "ltbench", "run", *arguments, "--out", str(out)]
    environment, quiet = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=quiet, stderr=quiet).pid


def attempts(folder: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Kill runs of new folders, and such with `--fresh`, about a dozen times each before they may end."""
    kills, faults, silent = Counter[str](), [], os.open(os.devnull, os.O_WRONLY)
    expected = predictions(trained(ARGUMENTS, folder / "whole"))
    while kills.total() < number:
        out = folder / f"killed{kills.total()}"
        later = rng.choices(["epoch", "between stages", "recording"], k=8)
        for first, moments in (
            ([], ["decoding", "decoding", "start", "shell", *later]),
            (["--fresh"], ["deleting", *later[:2]]),
        ):
            for moment in moments:
                seconds = rng.choice(["0", "0.2"])
                arguments = [*ARGUMENTS, "--jobs", rng.choice("12"), "--checkpoint-seconds", seconds, *first]
                shell = moment == "shell"
                process = from_shell(arguments, out) if shell else begun(arguments, out, silent)
                if not killed(process, out, moment, rng):
                    break
                first, kills[moment] = [], kills[moment] + 1
                if any(expected.get(name) != array for name, array in predictions(out).items()):
                    faults.append(f"{moment}: another record counts as done after the kill")
            code, text = ended(ARGUMENTS, out)
            if code or predictions(out) != expected:
                faults.append(f"after {', '.join(moments)}: code {code}, {text[-300:]}")
    print("killed in", ", ".join(f"{moment} {count}" for moment, count in kills.items()))
    return kills.total(), faults


if __name__ == "__main__":
    campaign(__doc__, 100, "0 differing bytes of predictions", attempts)
