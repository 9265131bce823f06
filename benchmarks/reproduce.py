"""Run what a table of the paper needs and is not done yet, then print that table.

    python benchmarks/reproduce.py table1 --dry-run
    python benchmarks/reproduce.py table3 --data-root PATH
    python benchmarks/reproduce.py table1 --dataset synthetic --trials 2

table1: methods at three ratios; table2: groups of ISIC-Archive-LT; table3: ablation of Flexible Sampling; figure3:
accuracy of each class. Further options are run.py's. --dry-run lists the runs: done, missing, estimated time.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ltbench.benchmarks import run
from ltbench.benchmarks.cli.command import Parser, guarded
from ltbench.errors import UserError
from ltbench.registry import unknown

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.records import Record, Result
    from ltbench.benchmarks.training.trial_spec import TrialSpec

_FIGURE_METHODS = ("ce", "rw", "flex")


@dataclass(frozen=True)
class Target:
    """A table or figure of the paper.

    Attributes
    ----------
    table : number of the paper's table, from whose rows the runs follow; None: `methods`
    kind : the table of leaderboard.py that shows it
    defaults : options of run.py that the user's own come after
    """

    table: int | None
    kind: str
    defaults: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


_ARCHIVE = ("--dataset", "isic_archive", "--ratio", "natural")
TARGETS: Mapping[str, Target] = {
    "table1": Target(1, "ratios", ("--ratio", "100", "200", "500")),
    "table2": Target(2, "groups", _ARCHIVE),
    "table3": Target(3, "ablation", ("--ratio", "100")),
    "figure3": Target(None, "per-class", _ARCHIVE, _FIGURE_METHODS),
}


def variants(target: Target) -> list[tuple[list[str], list[str]]]:
    """Return what a target needs: methods, and the `NAME=VALUE` that they are run with."""
    if target.table is None:
        return [(list(target.methods), [])]
    from ltbench.benchmarks.analysis.published import read_published

    published = read_published()
    rows = published[published["table"] == target.table]
    needed: dict[str, list[str]] = {}
    for method, changed in zip(rows["method"], rows["changed"], strict=True):
        needed.setdefault(changed, []).append(method)
    return [(list(dict.fromkeys(methods)), changed.split()) for changed, methods in needed.items()]


def commands(target: Target, others: Sequence[str]) -> list[list[str]]:
    """Return the arguments of run.py that a target needs, one list for each choice of hyper-parameters."""
    return [
        [*target.defaults, *others, "--method", *methods, *(["--set", *changed] if changed else [])]
        for methods, changed in variants(target)
    ]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog="reproduce.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsed.add_argument("target", metavar="|".join(TARGETS), help="what to reproduce")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; return the exit code, as run.py does."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    again = f"python benchmarks/reproduce.py {shlex.join(arguments)}"
    return guarded(lambda: _main(*parser().parse_known_args(arguments)), hint=f"; resume with: {again}")


def _main(named: argparse.Namespace, others: list[str]) -> int:
    if named.target not in TARGETS:
        raise unknown("target", named.target, TARGETS)
    target = TARGETS[named.target]
    chosen = {word.partition("=")[0] for word in others} & {"--method", "--set", "--list"}
    if chosen:
        raise UserError(f"reproduce.py chooses {' and '.join(sorted(chosen))} itself; use run.py")
    requests = [run.parser().parse_args(arguments) for arguments in commands(target, others)]
    plans = [run.plan(options) for options in requests]
    print(f"{named.target}, data: {plans[0].datasets[0].source.title}", flush=True)
    print(_listed(plans, _known(plans, requests[0].out)), flush=True)
    if requests[0].dry_run:
        return 0
    worst = 0
    for planned, options in zip(plans, requests, strict=True):
        worst = run.execute(planned, options) or worst
    _print_table(target, plans, requests[0])
    return worst


def _print_table(target: Target, plans: Sequence[run.Plan], options: argparse.Namespace) -> None:
    from ltbench.benchmarks.analysis.published import beside
    from ltbench.benchmarks.analysis.records import Record, read_result
    from ltbench.benchmarks.analysis.rendering import render
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.benchmarks.analysis.tables import tables_of
    from ltbench.benchmarks.training.protocol import PRESETS

    paths = [spec.folder / "result.json" for planned in plans for spec in planned.specs]
    settings = settings_of(Record(path.parent, read_result(path)) for path in paths if path.exists())
    tables = tables_of(target.kind, settings)
    if tables:
        print("\n" + render(tables, options.format))
    printed = [table for table in beside(settings, PRESETS) if target.table in set(table.frame["table"])]
    if printed and options.format != "csv":
        print("\n" + render(printed, options.format))


def _known(plans: Sequence[run.Plan], results: Path) -> list[Record]:
    """Return the records under the settings of some plans."""
    if not results.is_dir():
        return []
    found = [record for planned in plans for record in run.comparable_records(planned, results)[0]]
    return list({record.folder: record for record in found}.values())


def _listed(plans: Sequence[run.Plan], records: Sequence[Record]) -> str:
    """Return the list of runs: how many trials are done and missing, and the time that the missing ones may take."""
    from tabulate import tabulate

    from ltbench.benchmarks.training.trial import is_done

    lines, left = [], 0.0
    rate = _Rate(plans[0], records)
    for planned in plans:
        rows: dict[tuple[str, float], list[TrialSpec]] = {}
        for spec in planned.specs:
            label = " ".join([spec.method, *(f"{name}={value}" for name, value in spec.changed.items())])
            rows.setdefault((label, spec.data.ratio), []).append(spec)
        for (label, ratio), specs in rows.items():
            missing = [spec for spec in specs if not is_done(spec.folder)]
            each, basis = rate.seconds(specs[0]) if missing else (0.0, "")
            left += each * len(missing) / planned.jobs
            shown = _duration(each) if missing else ""
            lines.append([label, f"{ratio:g}", len(specs) - len(missing), len(missing), shown, basis])
    headers = ["run", "ratio", "done", "missing", "a trial", "estimated from"]
    table = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    missing = sum(line[3] for line in lines)
    together = f"{missing} trials missing: about {_duration(left)}, {plans[0].jobs} side by side on {plans[0].device}"
    return f"{table}\n{together if missing else 'everything is done'}"


class _Rate:
    """Estimates the seconds of a trial: from its own kind, else from others of its protocol, else by measuring."""

    def __init__(self, planned: run.Plan, records: Sequence[Record]) -> None:
        self._planned, self._records = planned, records
        self._measured: float | None = None

    def seconds(self, spec: TrialSpec) -> tuple[float, str]:
        """Return seconds of one trial, and from what they are known."""
        images = sum(spec.data.class_counts)
        alike = [record for record in self._records if _is_of(record.result, spec)]
        if alike:
            own = [record for record in alike if record.result.data.ratio == spec.data.ratio]
            each = [_seconds_per_image(record) * images for record in own or alike]
            return sum(each) / len(each), "done trials of this run" if own else "its trials at other ratios, by images"
        full = images * spec.protocol.epochs
        others = [record.result.cost for record in self._records]
        if others:
            rate = sum(each.train_seconds for each in others) / sum(each.images_seen for each in others)
            return full * rate, "done trials of other runs, all epochs"
        return full / self._images_per_second(), "a measured step, all epochs of one training"

    def _images_per_second(self) -> float:
        if self._measured is None:
            from ltbench.benchmarks.throughput import measure

            protocol, batch = self._planned.protocol, min(self._planned.protocol.batch_size, 32)
            backbone, size = protocol.backbone, protocol.image_size
            figures = measure(backbone, size, batch, self._planned.device, protocol.precision, steps=4, repeats=1)
            self._measured = figures.loop[0]
        return self._measured


def _seconds_per_image(record: Record) -> float:
    return record.result.cost.train_seconds / sum(record.result.data.class_counts)


def _is_of(result: Result, spec: TrialSpec) -> bool:
    return result.method == spec.method and result.hyperparameters == dict(spec.hyperparameters)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def program() -> NoReturn:
    """Run the command of this process and end it."""
    sys.exit(main())


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose module names are not meant to be top-level ones
    program()
