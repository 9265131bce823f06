"""One flipped bit in every stored file, at every class of position: nothing that is read changes without a word.

Of a run that was killed half-way, one trial finished and one within a stage, each file is flipped, the run goes on, and
everything is read: tables, predictions, weights, curves. So the image store, shared stages, journals, configurations,
splits and records are tried. A flip is found where the command says so, and harmless where all stays the same.
"""

import os
import random
import shutil
from pathlib import Path

import numpy as np
from common import FLEX, SMALL, begun, campaign, ended, tables, trained
from kill import killed

import ltbench
from ltbench.benchmarks.plots.training import read_curves
from ltbench.errors import UserError

ARGUMENTS = [*SMALL, "--method", "ce", "flex", *FLEX, "--epochs", "3", "--trials", "1"]


def positions(content: bytes, rng: random.Random, number: int) -> list[int]:
    """Return positions in a file: head, middle and end, and places between, of those not 0 where there are any."""
    size = len(content)
    written = np.flatnonzero(np.frombuffer(content, dtype=np.uint8)).tolist() or range(size)
    edges = [0, 7, size // 2, size - 22, size - 1]
    return sorted({min(max(place, 0), size - 1) for place in [*edges, *rng.choices(written, k=number)]})


def state(results: Path) -> tuple[object, ...]:
    """Return all that can be read of a results folder, or what is said instead."""
    code, out, errors = tables(results)
    if code or errors:
        return "traceback" if code == -1 else "refused", errors
    try:
        records = ltbench.load_results(results).records
        arrays = [[own.tobytes() for own in record.predictions().values()] for record in records]
        weights = [{name: own.numpy().tobytes() for name, own in record.model().items()} for record in records]
        curves = [(own.stages, own.recall.tobytes(), own.val_loss.tobytes()) for own in map(read_curves, records)]
    except UserError as error:
        return "refused", str(error)
    return "read", out, arrays, weights, curves


def begin(out: Path, rng: random.Random) -> None:
    """Leave a run of two methods that was killed within a stage of the second, after decisions between stages."""
    silent = os.open(os.devnull, os.O_WRONLY)
    while not all(any(out.glob(f"*/flex-*/trial0/journal/{name}")) for name in ("memo-*.json", "checkpoint.pt")):
        if not killed(begun(ARGUMENTS, out, silent), out, "epoch", rng):
            shutil.rmtree(out)


def attempts(folder: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Flip each file at its edges and at some more places, and go on."""
    count, faults, before, out = 0, [], folder / "before", folder / "out"
    begin(out, rng)
    shutil.copytree(out, before)
    expected = state(trained(ARGUMENTS, out))
    for path in sorted(path for path in before.rglob("*") if path.is_file() and path.stat().st_size):
        whole = path.read_bytes()
        for position in positions(whole, rng, number):
            shutil.rmtree(out)
            shutil.copytree(before, out)
            flipped = bytes([whole[position] ^ (1 << rng.randrange(8))])
            (out / path.relative_to(before)).write_bytes(whole[:position] + flipped + whole[position + 1 :])
            code, text = ended(ARGUMENTS, out)
            count, found = count + 1, state(out)
            said = code in (0, 2) and any(line.startswith(("error: ", "left out: ")) for line in text.splitlines())
            if "Traceback" in text or not (said or found[0] == "refused" or (code == 0 and found == expected)):
                faults.append(f"{path.relative_to(before)}, byte {position}: code {code}, {text[-300:]}")
    return count, faults


if __name__ == "__main__":
    campaign(__doc__, 1, "0 silent changes of predictions, weights and tables", attempts)
