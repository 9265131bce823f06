"""Wrong command lines: each ends with code 2 and one line on stderr, and none waits for a pipe."""

import os
import random
from pathlib import Path

from common import called, campaign

from ltbench.benchmarks.cli.command import COMMANDS
from ltbench.benchmarks.cli.command import main as command

NUMBERS = ("--trials", "--epochs", "--batch-size", "--image-size", "--n-max", "--seed", "--jobs", "--threads", "--lr")
NUMBERS += ("--ratio", "--trial", "--patience", "--weight-decay", "--lr-warmup", "--val-per-class")
NAMES = ("--dataset", "--method", "--preset", "--backbone", "--split", "--device", "--format", "--precision")
NAMES += ("--optimizer", "--schedule", "--selection-metric", "--epoch-length", "--wandb", "--set", "--dataset-option")
FILES = ("--config", "--split-dir", "--data-root", "--plugin")
OTHERS = {
    **dict.fromkeys(("leaderboard", "report", "figures"), ("--results",)),
    "throughput": ("--threads", "--steps", "--repeats", "--batch-size", "--image-size", "--backbone", "--device"),
    "reproduce": ("--ratio", "--epochs"),
    "sweep": ("--search", "--budget"),
}
WRONG_NUMBERS = ("", "-1", "nan", "1e400", "10000000000000", "nothing", "\x1b[2J", "0x10")
WRONG_NAMES = ("", "nothing", "-", "\x1b[2J", "a" * 300, "=", "nothing.py")


def drawn(rng: random.Random) -> list[str]:
    """Return a wrong command line."""
    name, number = rng.choice([*OTHERS]), ["--dataset", "synthetic", rng.choice(NUMBERS), rng.choice(WRONG_NUMBERS)]
    return rng.choice(
        [
            [rng.choice([*COMMANDS]), rng.choice(["--nothing", "--out", "--results", "--no-such=1"])],
            [name, rng.choice(OTHERS[name]), rng.choice(WRONG_NAMES[1:])],
            ["run", "--dry-run", *number],
            ["run", "--dry-run", rng.choice(NAMES), rng.choice(WRONG_NAMES)],
            ["run", "--dry-run", rng.choice(FILES), rng.choice(["nowhere", "deep.json", "", "link", "pipe"])],
        ]
    )


def attempts(folder: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Call wrong command lines in this process, one after another."""
    os.chdir(folder)
    Path("deep.json").write_text("[" * 10**5)
    Path("link").symlink_to("nowhere")
    os.mkfifo("pipe")
    faults = []
    for line in (drawn(rng) for _ in range(number)):
        code, _, errors = called(command, *line)
        lines = errors.strip().splitlines()
        if code != 2 or len(lines) != 1 or not lines[0].startswith("error: ") or not lines[0].isprintable():
            faults.append(f"{line!r:.200}: code {code}, {errors[-200:]!r}")
    os.chdir("/")
    return number, faults


if __name__ == "__main__":
    campaign(__doc__, 250, "code 2 and one line", attempts)
