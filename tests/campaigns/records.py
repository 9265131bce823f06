"""Wrong types and altered values in `result.json`: no traceback, and no table that changes without a word.

- A value of a wrong type, with a right digest: refused by the checks of types, or in a place where no table looks.
- An altered value of the right type: refused, since the digest is not right.
- The same with a right digest, which nothing but a forger writes: metrics are refused, since they contradict the
  predictions; the last line but one counts the others, which the digest alone protects.
"""

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import FLEX, SMALL, called, campaign, tables, trained

from ltbench.benchmarks import figures, report
from ltbench.benchmarks.analysis.record_files.sealed import DIGEST, sealed

WRONG = (None, True, -1, 0.5, 2**70, 1e400, "text", "", [], [[]], [1, "a"], {}, {"a": 1})
SEALED = "altered, sealed"
ATTACKS = (*["wrong type"] * 8, *["altered"] * 3, *[SEALED] * 3)
FREE = ("story", "inspected", "versions", "protocol", "hyperparameters", "changed")
"""Values of no fixed form, which the report and the figures show: each is tried there, too."""


def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in nested JSON."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, own in children:
        yield from places(own, (*path, name))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """Return the value at a place."""
    return at(value[place[0]], place[1:]) if place else value


def kind(value: Any) -> str:
    """Return the kind of a JSON value."""
    return "number" if type(value) in (int, float) else type(value).__name__


def altered(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, int | float):
        return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 1.5 * value + 0.25
    if isinstance(value, str):
        return f"{value}x"
    return [*value, *value[-1:]] if isinstance(value, list) and value else {"x": 1} if isinstance(value, dict) else 1


def outcome(results: Path, expected: tuple[int, str, str]) -> str:
    """Return what becomes of a forged record in tables."""
    code, out, errors = tables(results)
    if code == -1:
        return f"traceback {errors[-200:]}"
    return "refused" if errors else "same tables" if out == expected[1] else "other tables"


def shown(results: Path, place: tuple[Any, ...], number: int) -> list[str]:
    """Return the commands that end with a traceback: the story's figures, and of some records the whole report."""
    answers = []
    if place[0] == "story":
        story = ("--figure", "story", "--method", "flex", "--out", results / "figures")
        answers.append(called(figures.main, "--results", results, *story))
    if number % 50 == 0 or (place[0] in FREE and number % 5 == 0):
        answers.append(called(report.main, "--results", results))
    return [errors[-200:] for code, _, errors in answers if code == -1]


def attempts(folder: Path, rng: random.Random, number: int) -> tuple[int, list[str]]:
    """Forge values of one record."""
    faults, counts = [], Counter[str]()
    results = trained([*SMALL, "--method", "ce", "flex", *FLEX, "--epochs", "2", "--trials", "1"], folder / "results")
    (path,) = results.glob("*/flex-*/trial0/result.json")
    value, expected = json.loads(path.read_text()), tables(results)
    by_name = {name: list(places(own, (name,))) for name, own in value.items() if name != DIGEST}
    for turn in range(number):
        attack = ATTACKS[turn % len(ATTACKS)]
        place = rng.choice(by_name[rng.choice([*by_name])])
        own = at(value, place)
        new = rng.choice([new for new in WRONG if kind(new) != kind(own)]) if attack == "wrong type" else altered(own)
        forged = copy.deepcopy(value)
        at(forged, place[:-1])[place[-1]] = new
        path.write_text(json.dumps(forged if attack == "altered" or new == 1e400 else sealed(forged)))
        found = outcome(results, expected)
        counts[f"{attack}: {found}"] += 1
        metric = place[0] in ("val", "test") and kind(own) in ("number", "list") and "undefined" not in place
        allowed = {"wrong type": ["same tables"], SEALED: [] if metric else ["same tables", "other tables"]}
        right = found in ("refused", *allowed.get(attack, ()))
        wrong = [*shown(results, place, turn), *([] if right else [found])]
        faults += [f"{attack}: {place} = {new!r:.60}: {fault}" for fault in wrong]
    print("; ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    return number, faults


if __name__ == "__main__":
    campaign(__doc__, 700, "0 tracebacks, 0 silent changes of a table", attempts)
