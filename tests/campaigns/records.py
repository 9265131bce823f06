"""Wrong types and altered values in `result.json`: no traceback, and no table that changes without a word.

- A value of a wrong type, with a right digest: refused by the checks of types, or in a place where no table looks.
- An altered value of the right type: refused, since the digest is not right.
- The same with a right digest, which nothing but a forger writes: metrics are refused, since they contradict the
  predictions; the last line but one counts the others, which the digest alone protects.
"""

import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from common import called, options, page, tables, temporary_folder, trained, verdict

from ltbench.benchmarks import figures
from ltbench.benchmarks.analysis.record_files.sealed import DIGEST, sealed

WRONG = (None, True, -1, 0.5, 2**70, 1e400, "text", "", [], [[]], [1, "a"], {}, {"a": 1})
KINDS = ((bool, "bool"), (int | float, "number"), (str, "text"), (list, "list"), (dict, "names"))
FREE = ("story", "inspected", "versions", "protocol", "hyperparameters", "changed")
"""Values of no fixed form, which the report and the figures show: each is tried there, too."""
Answer = tuple[int, str, str]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in nested JSON."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, own in children:
        yield from places(own, (*path, name))


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """Return the value at a place."""
    for name in place:
        value = value[name]
    return value


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of nested JSON with another value at one place."""
    result = copy.deepcopy(value)
    at(result, place[:-1])[place[-1]] = new
    return result


def kind(value: Any) -> str:
    """Return the kind of a JSON value."""
    return next((name for types, name in KINDS if isinstance(value, types)), "null")


def altered(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value * 0.9 + 0.01
    if isinstance(value, str):
        return f"{value}x"
    return [*value, *value[-1:]] if isinstance(value, list) and value else {"x": 1} if isinstance(value, dict) else 1


def outcome(found: Answer, expected: Answer) -> str:
    """Return what became of a forged record."""
    if found[0] == -1 or "Traceback" in found[2]:
        return "traceback"
    return "refused" if found[2] else "same tables" if found[1] == expected[1] else "other tables"


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 700)
    rng, faults, counts = random.Random(wanted.seed), [], Counter[tuple[str, str]]()
    with temporary_folder() as folder:
        results = trained(folder / "results", "ce", "flex")
        path = next(results.glob("*/flex-*/trial0/result.json"))
        value, expected = json.loads(path.read_text()), tables(results)
        by_name = {name: list(places(own, (name,))) for name, own in value.items() if name != DIGEST}
        for number in range(wanted.number):
            place = rng.choice(by_name[rng.choice([*by_name])])
            own, share = at(value, place), number / wanted.number
            attack = "wrong type" if share < 4 / 7 else "altered" if share < 5.5 / 7 else "altered, sealed"
            wrong = [new for new in WRONG if kind(new) != kind(own)]
            new = rng.choice(wrong) if attack == "wrong type" else altered(own)
            forged = changed(value, place, new)
            path.write_text(json.dumps(forged if attack == "altered" or new == 1e400 else sealed(forged)))
            found = outcome(tables(results), expected)
            counts[attack, found] += 1
            metric = place[0] in ("val", "test") and kind(own) in ("number", "list") and "undefined" not in place
            right = {"altered": found == "refused", "altered, sealed": found == "refused" or not metric}
            if found == "traceback" or not right.get(attack, found in ("refused", "same tables")):
                faults.append(f"{attack}: {place} = {new!r:.60}: {found}")
            faults += [f"{attack}: {place} = {new!r:.60}: {fault}" for fault in shown(results, place, number, found)]
        path.write_text(json.dumps(value))
        faults += [] if tables(results) == expected else ["the record as it was gives other tables"]
    print("; ".join(f"{attack}: {found} {count}" for (attack, found), count in sorted(counts.items())))
    return verdict(wanted.number, faults, "0 tracebacks, 0 silent changes of a table")


def shown(results: Any, place: tuple[Any, ...], number: int, found: str) -> list[str]:
    """Return the commands that end with a traceback: the story's figures, and of some records the whole report."""
    answers = {}
    if place[0] == "story" and found != "refused":
        drawn = ["--results", str(results), "--figure", "story", "--method", "flex", "--out", str(results / "figures")]
        answers["figures"] = called(figures.main, drawn)
    if number % 50 == 0 or (place[0] in FREE and found != "refused" and number % 5 == 0):
        answers["report"] = page(results, results / "page.html")
    return [f"{name}: {errors[-200:]}" for name, (code, _, errors) in answers.items() if code == -1]


if __name__ == "__main__":
    sys.exit(main())
