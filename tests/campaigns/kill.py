"""A run that is killed at any moment and started again ends with the predictions of one that was not.

SIGKILL goes to the whole group of processes. Most runs are forked from this process, which has imported all modules, so
that a kill costs a second; of each round's kills one is of a command that was started from a shell.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import SMALL, begun, ended, options, predictions, temporary_folder, verdict

SIGNS = {
    "start": "",
    "decoding": "cache/images/*/pixels.u8",
    "epoch": "*/*/trial*/journal/checkpoint.pt",
    "between stages": "*/*/trial*/journal/stage*.json",
    "recording": "*/*/trial*/predictions.npz*",
    "deleting": "*/*/discarded-*",
}
"""Moments, and the files whose change is the sign of each."""
DELAYS = {"start": 0.5, "decoding": 0.4, "epoch": 0.3, "between stages": 0.05, "recording": 0.02, "deleting": 0.004}
"""Seconds after the sign, at most, at which the kill comes."""
ARGUMENTS = [*SMALL, "--method", "ce", "flex", "--epochs", "6", "--trials", "2", "--set", "anchor_scale=0.3"]


def seen(out: Path, moment: str) -> set[tuple[str, int]]:
    """Return the files that are the sign of a moment, with their times."""
    found = set()
    for path in out.glob(SIGNS[moment]) if SIGNS[moment] else ():
        try:
            found.add((str(path), path.stat().st_mtime_ns))
        except FileNotFoundError:  # renamed meanwhile
            continue
    return found


def killed(process: int, out: Path, moment: str, delay: float) -> bool:
    """Kill a group of processes after a moment; return whether it had not ended before."""
    before = seen(out, moment)
    while SIGNS[moment] and not seen(out, moment) - before:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    time.sleep(delay)
    if os.waitpid(process, os.WNOHANG)[0]:
        return False
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def from_shell(arguments: list[str]) -> int:
    """Start `ltbench run` as a person does; return the id of its process and group."""
    command = [sys.executable, "-m", "ltbench", "run", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=quiet, stderr=quiet).pid


def round_of(out: Path, rng: random.Random, expected: dict[str, bytes], kills: Counter[str]) -> list[str]:
    """Kill a run of a new folder, and one with `--fresh`, about a dozen times; return what was wrong afterwards."""
    faults, silent = [], os.open(os.devnull, os.O_WRONLY)
    plan = ["decoding", "decoding", "start", "shell", *rng.choices(["epoch", "between stages", "recording"], k=8)]
    for first, moments in (([], plan), (["--fresh"], ["deleting", *plan[4:6]])):
        for moment in moments:
            arguments = [*ARGUMENTS, "--jobs", str(rng.choice([1, 2])), *first, "--out", str(out)]
            if moment == "shell":
                landed = killed(from_shell(arguments), out, "start", rng.uniform(0, 9))
            else:
                process = begun(arguments, output=silent)
                landed = killed(process, out, moment, rng.uniform(0, DELAYS[moment]))
            if not landed:
                break
            first, kills[moment] = [], kills[moment] + 1
            if any(expected.get(name) != array for name, array in predictions(out).items()):
                faults.append(f"{moment}: another record counts as done after the kill")
        code, text = ended([*ARGUMENTS, "--jobs", "1", "--out", str(out)])
        if code or predictions(out) != expected:
            faults.append(f"after {', '.join(moments)}: code {code}, {text[-300:]}")
    os.close(silent)
    return faults


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 100)
    rng, kills, rounds = random.Random(wanted.seed), Counter[str](), 0
    faults: list[str] = []
    with temporary_folder() as folder:
        code, text = ended([*ARGUMENTS, "--jobs", "1", "--out", str(folder / "whole")])
        if code:
            raise RuntimeError(text)
        expected = predictions(folder / "whole")
        while kills.total() < wanted.number:
            rounds += 1
            faults += round_of(folder / f"round{rounds}", rng, expected, kills)
    print("killed in", ", ".join(f"{moment} {count}" for moment, count in kills.items()))
    return verdict(kills.total(), faults, "0 differing bytes of predictions")


if __name__ == "__main__":
    sys.exit(main())
