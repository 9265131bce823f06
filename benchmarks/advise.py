"""What finished trials decide, and what they leave open: which method to take, in about ten lines a setting.

    ltbench advise results
    ltbench advise results --baseline rs
    ltbench advise results --format json

Differences and their p-values are those of the leaderboard. What a gain costs, which classes have too few test images,
and how many images or trials would tell the two best methods apart stand beside them.
"""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.cli.command import Parser, guarded, invocation, named_path, script

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.advice.facts import Advice
    from ltbench.benchmarks.analysis.standings import Setting
    from ltbench.errors import UserError

FORMATS = ("text", "json")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog=invocation("advise"), description="Say what finished trials decide, and what they leave open.")
    about_results = "the folder that `ltbench run --out` fills; default: results"
    parsed.add_argument("results", type=named_path, nargs="?", default=Path("results"), help=about_results)
    parsed.add_argument("--baseline", metavar="NAME", help="the row that gains refer to; default: ce")
    parsed.add_argument("--format", default="text", metavar="NAME", help=f"{', '.join(FORMATS)}; default: text")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the advice; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.advice.facts import advice_of
    from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
    from ltbench.benchmarks.analysis.records import find_records
    from ltbench.benchmarks.analysis.standings import BASELINE, settings_of
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    settings = settings_of(find_records(options.results, derived=DerivedFiles.under(options.results)))
    if not settings:
        raise UserError(f"{options.results} holds no finished trial; run `{invocation('run')}` first")
    names = {row.name for setting in settings for row in setting.rows}
    if options.baseline is not None and options.baseline not in names:
        raise unknown("baseline", options.baseline, sorted(names))
    found = advice_of(settings, options.baseline or BASELINE)
    if not found:
        raise _nothing_to_compare(settings[0], options.results)
    print(_as_json(found) if options.format == "json" else _as_text(found))
    return 0


def _as_text(found: Sequence[Advice]) -> str:
    from ltbench.benchmarks.analysis.advice.text import lines_of

    return "\n\n".join("\n".join(lines_of(advice)) for advice in found)


def _as_json(found: Sequence[Advice]) -> str:
    import json

    from ltbench.benchmarks.analysis.advice.text import ADJUSTED_BASELINE, ADJUSTED_BEST, lines_of

    settings = [{**_numbers(advice), "lines": lines_of(advice)} for advice in found]
    adjusted = {"best": ADJUSTED_BEST, "baseline": ADJUSTED_BASELINE}
    return json.dumps({"p_values": adjusted, "settings": settings}, indent=1, allow_nan=False)


def _numbers(value: Any) -> Any:
    """Return a value as JSON: null where it is not known, "infinite" where no number is enough."""
    from ltbench.benchmarks.analysis.record_files.description import as_json

    if is_dataclass(value):
        return {own.name: _numbers(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, tuple):
        return [_numbers(own) for own in value]
    return "infinite" if isinstance(value, float) and math.isinf(value) else as_json(value)


def _nothing_to_compare(setting: Setting, results: Path) -> UserError:
    """Return the error of settings with one method each, or with methods of other trials, and what to run."""
    from ltbench.benchmarks.analysis.standings import BASELINE
    from ltbench.errors import UserError

    row = setting.rows[0]
    other = BASELINE if row.result.method != BASELINE else "rs"
    config = shlex.quote(str(row.records[0].folder / "config.json"))
    trials = " ".join(map(str, row.trials))
    options = f"--config {config} --method {other} --trial {trials} --out {shlex.quote(str(results))}"
    reason = f"{results} holds no two methods of the same data and trials, only {row.name}"
    return UserError(f"{reason}; run `{invocation('run')} {options}`")


if __name__ == "__main__":
    script(__file__)
