"""A run that is killed at random moments and started again ends with the predictions of one that was not."""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from common import SMALL, called, options, process, temporary_folder, verdict

from ltbench.benchmarks import run


def predictions(results: Path) -> dict[str, bytes]:
    """Return the bytes of all saved arrays, by trial and name."""
    found = {}
    for path in sorted(results.glob("*/*/trial*/predictions.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found |= {f"{path.parent.relative_to(results)}/{name}": arrays[name].tobytes() for name in arrays.files}
    return found


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 100)
    rng, faults, kills, rounds = random.Random(wanted.seed), [], 0, 0
    arguments = [*SMALL, "--method", "ce", "flex", "--epochs", "6", "--trials", "2", "--set", "anchor_scale=0.3"]
    with temporary_folder() as folder:
        code, _, errors = called(run.main, [*arguments, "--jobs", "1", "--out", str(folder / "whole")])
        if code:
            raise RuntimeError(errors)
        expected = predictions(folder / "whole")
        while kills < wanted.number:
            rounds, out, fresh = rounds + 1, folder / f"killed{rounds}", rng.random() < 0.2
            while kills < wanted.number:
                first = ["--fresh"] if fresh and out.exists() else []
                started = process(["run", *arguments, "--jobs", str(rng.choice([1, 2])), *first, "--out", str(out)])
                with contextlib.suppress(Exception):
                    started.wait(rng.uniform(1.5, 8))
                if started.poll() is not None:
                    break
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()
                kills, fresh = kills + 1, False
            time.sleep(0.5)  # workers see that their parent is gone
            code, _, errors = called(run.main, [*arguments, "--jobs", "1", "--out", str(out)])
            if code or predictions(out) != expected:
                faults.append(f"round {rounds}: code {code}, {errors[-300:]}")
    return verdict(kills, faults, "0 differing bytes of predictions")


if __name__ == "__main__":
    sys.exit(main())
