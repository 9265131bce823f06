"""Wrong types and altered values in `result.json`: no traceback, and no table that changes without a word."""

import copy
import json
import random
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from common import called, options, tables, temporary_folder, trained, verdict

from ltbench.benchmarks import report
from ltbench.benchmarks.analysis.record_files.sealed import sealed

WRONG = (None, True, -1, 1e400, "text", "", [], [[]], {}, {"a": 1}, [1, "a"], 2**70, 0.5)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in nested JSON."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, own in children:
        yield from places(own, (*path, name))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of nested JSON with another value at one place."""
    result = copy.deepcopy(value)
    inside = result
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = new
    return result


def altered(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value * 0.9 + 0.01
    if isinstance(value, str):
        return f"{value}x"
    return [*value, *value[-1:]] if isinstance(value, list) and value else {"x": 1} if isinstance(value, dict) else 1


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 550)
    rng, faults = random.Random(wanted.seed), []
    with temporary_folder() as folder:
        results = trained(folder / "results")
        path = next(results.glob("*/rs-*/trial0/result.json"))
        text = path.read_text()
        value, expected = json.loads(text), tables(results)
        every = list(places(value))
        for number in range(wanted.number):
            place = rng.choice(every)
            wrong_type = number * 11 < wanted.number * 8  # 400 of 550
            new = rng.choice(WRONG) if wrong_type else altered(at(value, place))
            forged = changed(value, place, new)
            # A wrong type is given a right digest, so that the checks of types are what is tried.
            path.write_text(json.dumps(sealed(forged) if wrong_type and new != 1e400 else forged))
            found = tables(results)
            faults += [f"{place} = {new!r}: {fault}" for fault in faults_of(found, expected, wrong_type)]
            if number % 50 == 0:
                code, _, errors = called(report.main, ["--results", str(results), "--out", str(folder / "page.html")])
                faults += [f"{place} = {new!r}: report: {errors[-200:]}"] if code == -1 else []
        path.write_text(text)
        shutil.rmtree(results)
    return verdict(wanted.number, faults, "0 tracebacks, 0 silent changes of a table")


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """Return the value at a place."""
    for name in place:
        value = value[name]
    return value


def faults_of(found: tuple[int, str, str], expected: tuple[int, str, str], wrong_type: bool) -> list[str]:
    """Return what is wrong with the answer to a forged record."""
    code, out, errors = found
    if code == -1 or "Traceback" in errors:
        return [f"traceback: {errors[-200:]}"]
    if not errors and out != expected[1] and not wrong_type:
        return ["a table changed without a word"]
    return []


if __name__ == "__main__":
    sys.exit(main())
