"""Wrong command lines: each ends with code 2 and one line on stderr, and none waits for a pipe."""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from common import called, options, temporary_folder, verdict

from ltbench.benchmarks.cli.command import COMMANDS
from ltbench.benchmarks.cli.command import main as command

NUMBERS = ("--trials", "--epochs", "--batch-size", "--image-size", "--n-max", "--seed", "--jobs", "--threads", "--lr")
NUMBERS += ("--ratio", "--trial", "--patience", "--weight-decay", "--lr-warmup", "--val-per-class")
NAMES = (
    "--dataset",
    "--method",
    "--preset",
    "--backbone",
    "--split",
    "--device",
    "--format",
    "--precision",
    "--optimizer",
)
NAMES += ("--schedule", "--selection-metric", "--epoch-length", "--wandb", "--set", "--dataset-option", "--plugin")
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
    kind = rng.randrange(5)
    if kind == 0:
        name = rng.choice([*COMMANDS])
        return [name, rng.choice(["--nothing", "--out", "--results", "--no-such=1"])]
    if kind == 1:
        name = rng.choice([*OTHERS])
        return [name, rng.choice(OTHERS[name]), rng.choice(WRONG_NAMES[1:])]
    if kind == 2:
        return ["run", "--dry-run", "--dataset", "synthetic", rng.choice(NUMBERS), rng.choice(WRONG_NUMBERS)]
    if kind == 3:
        return ["run", "--dry-run", rng.choice(NAMES), rng.choice(WRONG_NAMES)]
    return ["run", "--dry-run", rng.choice(FILES), rng.choice(["nowhere", "deep.json", "", "link", "pipe"])]


def answered(main: Callable[[list[str]], int], line: list[str]) -> str:
    """Return what is wrong with the answer to a wrong command line; empty where nothing is."""
    code, _, errors = called(main, line)
    lines = errors.strip().splitlines()
    right = code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable()
    return "" if right else f"{line!r:.200}: code {code}, {errors[-200:]!r}"


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 250)
    rng = random.Random(wanted.seed)
    with temporary_folder() as folder:
        os.chdir(folder)
        Path("deep.json").write_text("[" * 10**5)
        Path("link").symlink_to("nowhere")
        os.mkfifo("pipe")
        faults = [fault for _ in range(wanted.number) if (fault := answered(command, drawn(rng)))]
        os.chdir("/")
    return verdict(wanted.number, faults, "code 2 and one line")


if __name__ == "__main__":
    sys.exit(main())
