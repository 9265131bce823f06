"""One flipped bit in every stored file, at every class of position: nothing that is read changes without a word.

Of finished trials each file is flipped and everything is read: tables, predictions, weights, curves. Of a run that was
killed half-way each file is flipped and the run goes on: image store, shared stages, journal, configuration, split. A
flip is found where the command says so, and harmless where predictions and tables stay the same.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
from common import SMALL, begun, ended, options, predictions, tables, temporary_folder, trained, verdict
from kill import killed

import ltbench
from ltbench.benchmarks.plots.training import read_curves
from ltbench.errors import UserError

ARGUMENTS = [*SMALL, "--method", "ce", "flex", "--epochs", "4", "--trials", "1", "--set", "anchor_scale=0.3"]


def positions(content: bytes, rng: random.Random, number: int) -> list[int]:
    """Return positions in a file: its head, middle and end, and places between, of those not 0 where there are any."""
    size = len(content)
    edges = [0, 7, size // 2, size - 22, size - 1]
    written = np.flatnonzero(np.frombuffer(content, dtype=np.uint8)).tolist() or range(size)
    return sorted({min(max(place, 0), size - 1) for place in [*edges, *rng.choices(written, k=number)]})


def flip(path: Path, position: int, rng: random.Random) -> None:
    """Flip one bit of a byte of a file."""
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))


def state(results: Path) -> tuple[object, ...]:
    """Return all that can be read of a results folder, or what is said instead."""
    code, out, errors = tables(results)
    try:
        records = ltbench.load_results(results).records
        arrays = [record.predictions()["test_logits"].tobytes() for record in records]
        weights = [{name: own.numpy().tobytes() for name, own in record.model().items()} for record in records]
        curves = [(own.stages, own.recall.tobytes(), own.val_loss.tobytes()) for own in map(read_curves, records)]
    except UserError as error:
        return "refused", str(error)
    if code == -1 or errors:
        return "traceback" if code == -1 else "refused", errors
    return "read", out, arrays, weights, curves


def flips_of_finished(results: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Flip each file of finished trials and read; return the number of flips and what was wrong."""
    expected, attempts, faults = state(results), 0, []
    for path in files_of(results, cache=False):
        whole = path.read_bytes()
        for position in positions(whole, rng, number):
            flip(path, position, rng)
            found = state(results)
            attempts += 1
            if found != expected and found[0] != "refused":
                faults.append(f"{path.relative_to(results)}, byte {position}: {str(found)[:300]}")
            path.write_bytes(whole)
    return attempts, faults


def files_of(results: Path, *, cache: bool) -> list[Path]:
    """Return the files of a results folder that hold anything, those of the cache with them or not."""
    found = [path for path in results.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path for path in found if cache or "cache" not in path.relative_to(results).parts)


def begin(out: Path) -> None:
    """Leave a run of two methods that was killed within a stage of the second, after decisions between stages."""
    silent = os.open(os.devnull, os.O_WRONLY)
    while not all(any(out.glob(f"*/flex-*/trial0/journal/{name}")) for name in ("memo-*.json", "checkpoint.pt")):
        if not killed(begun([*ARGUMENTS, "--jobs", "1", "--out", str(out)], output=silent), out, "epoch", 0.02):
            shutil.rmtree(out)
    os.close(silent)


def flips_of_begun(folder: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Flip each file of a run that was killed, and go on; return the number of flips and what was wrong."""
    attempts, faults, before, out = 0, [], folder / "before", folder / "out"
    begin(out)
    shutil.copytree(out, before)
    code, text = ended([*ARGUMENTS, "--jobs", "1", "--out", str(out)])
    expected = code, predictions(out), tables(out)
    if code:
        raise RuntimeError(text)
    for path in files_of(before, cache=True):
        for position in positions(path.read_bytes(), rng, number):
            shutil.rmtree(out)
            shutil.copytree(before, out)
            flip(out / path.relative_to(before), position, rng)
            code, text = ended([*ARGUMENTS, "--jobs", "1", "--out", str(out)])
            attempts += 1
            lines = [line for line in text.splitlines() if line.startswith(("error: ", "left out: "))]
            said = code in (0, 2) and lines and "Traceback" not in text
            if not said and (code, predictions(out), tables(out)) != expected:
                faults.append(f"{path.relative_to(before)}, byte {position}: code {code}, {text[-300:]}")
    return attempts, faults


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 2)
    rng = random.Random(wanted.seed)
    with temporary_folder() as folder:
        attempts, faults = flips_of_finished(trained(folder / "finished", "ce", "rs", epochs=1), rng, 4 * wanted.number)
        more, others = flips_of_begun(folder, rng, wanted.number)
        print(f"{attempts} flips in finished trials, {more} in one that goes on")
    return verdict(attempts + more, [*faults, *others], "0 silent changes of predictions, weights and tables")


if __name__ == "__main__":
    sys.exit(main())
