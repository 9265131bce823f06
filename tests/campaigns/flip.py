"""One flipped byte in every stored file, at every class of position: nothing that is read changes without a word.

A flip is found where the command that reads the file says so, and harmless where predictions and tables stay the same.
"""

import random
import sys
from pathlib import Path

from common import options, tables, temporary_folder, trained, verdict

import ltbench
from ltbench.errors import UserError


def positions(size: int, rng: random.Random, number: int) -> list[int]:
    """Return positions in a file: its head, its end, and places between."""
    edges = [0, 1, 7, size // 2, size - 22, size - 2, size - 1]
    return sorted({min(max(place, 0), size - 1) for place in [*edges, *(rng.randrange(size) for _ in range(number))]})


def state(results: Path) -> tuple[object, ...]:
    """Return all that can be read of a results folder: tables, predictions, weights; or what is said instead."""
    code, out, errors = tables(results)
    try:
        loaded = ltbench.load_results(results)
        predictions = [record.predictions()["test_logits"].tobytes() for record in loaded.records]
        weights = [{name: own.numpy().tobytes() for name, own in record.model().items()} for record in loaded.records]
    except UserError as error:
        return "refused", str(error)
    return (
        ("traceback", errors) if code == -1 else ("refused", errors) if errors else ("read", out, predictions, weights)
    )


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 25)
    rng, faults, attempts = random.Random(wanted.seed), [], 0
    with temporary_folder() as folder:
        results = trained(folder / "results", methods=["ce"], epochs=1)
        expected = state(results)
        stored = [path for path in results.rglob("*") if path.is_file() and path.stat().st_size]
        for path in sorted(stored):
            if "cache" in path.relative_to(results).parts:  # read in training alone
                continue
            whole = path.read_bytes()
            for position in positions(len(whole), rng, wanted.number):
                attempts += 1
                flipped = bytes([whole[position] ^ (1 << rng.randrange(8))])
                path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
                found = state(results)
                if found != expected and found[0] != "refused":
                    faults.append(f"{path.relative_to(results)}, byte {position}: {str(found)[:200]}")
            path.write_bytes(whole)
    return verdict(attempts, faults, "0 silent changes of predictions, weights and tables")


if __name__ == "__main__":
    sys.exit(main())
