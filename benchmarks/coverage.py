"""Simulate how often intervals hold the truth, and how often comparisons see what is not there.

    ltbench coverage --replicates 1000 --jobs 2

Seven tables: intervals, intervals where several images are of one lesion, the same of patients with an image of each
class, leaderboards of equal methods, the same of such patients and where trials of some methods differ more than those
of others, and the power of what tables call detectable. What is drawn is said in `analysis/statistics/simulation.py`.
1000 replicates take about 40 minutes of one core; a rate of 5 % has then a standard error of 0.7 %.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.statistics.simulation import Regime

_LESION_IMAGES = 3
_LESION_CORRELATIONS = (0.3, 0.7)
_PATIENTS = 40
_BOARDS = ("8 x 100", "14: 2575 to 3")
_BOARD_EFFECTS = (("none", "none"), ("usual", "usual"), ("strong", "usual"))
_UNLIKE = 0.5

_Rates = Callable[["Regime"], Mapping[str, float]]
_Map = Callable[[_Rates, Iterable["Regime"]], Iterable[Mapping[str, float]]]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("coverage"),
        description=about(__doc__, "coverage", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsed.add_argument("--replicates", type=int, default=1000, metavar="N", help="data sets a regime; default: 1000")
    parsed.add_argument("--trials", type=int, nargs="+", default=[1, 2, 3, 5, 10], metavar="T")
    parsed.add_argument("--sizes", nargs="+", metavar="NAME", help="test sets; default: all")
    parsed.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; default: 1")
    parsed.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.statistics.simulation import (
        SIZES,
        found_if_detectable,
        interval_rates,
        leaderboard_rates,
    )
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    for name in options.sizes or ():
        if name not in SIZES:
            raise unknown("test set", name, SIZES)
    if min(options.replicates, options.jobs, *options.trials) < 1 or options.seed < 0:
        raise UserError("--replicates, --jobs and --trials must be at least 1, --seed at least 0")
    sizes, drawn = options.sizes or list(SIZES), {"replicates": options.replicates, "seed": options.seed}
    boards, several = [name for name in sizes if name in _BOARDS], [each for each in options.trials if each > 1]
    equal = partial(_regimes, boards, several)
    print(f"Percent of {options.replicates} replicates; coverage at 95 %, errors at 5 %; differences in points\n")
    with _workers(options.jobs) as mapped:
        show = partial(_print, mapped)
        intervals = partial(interval_rates, **drawn)
        show("Intervals", intervals, _regimes(sizes, options.trials))
        lesions = f"Intervals, {_LESION_IMAGES} images a lesion, 8 classes of 33 lesions"
        show(lesions, intervals, _lesion_regimes(options.trials))
        patients = f"{_PATIENTS} patients with an image of each of 8 classes"
        show(f"Intervals, {patients}", intervals, _patient_regimes(options.trials))
        leaderboards = partial(leaderboard_rates, **drawn)
        show(f"17 equal methods, {patients}", leaderboards, _patient_regimes(several))
        show("17 equal methods", leaderboards, equal(_BOARD_EFFECTS))
        unlike = f"17 equal methods, trial effects times exp({_UNLIKE} z) of each"
        show(unlike, leaderboards, equal(_BOARD_EFFECTS[1:], unlike=_UNLIKE))
        show("One of 17 better than the baseline", partial(found_if_detectable, **drawn), equal(_BOARD_EFFECTS[:2]))
    return 0


@contextmanager
def _workers(jobs: int) -> Iterator[_Map]:
    """Yield a `map` over regimes, in this process or in several."""
    from ltbench.processes import prepare_worker, worker_context

    if jobs == 1:
        yield map
        return
    pool = ProcessPoolExecutor(jobs, mp_context=worker_context(), initializer=prepare_worker)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _regimes(
    sizes: Sequence[str],
    trials: Sequence[int],
    effects: Sequence[tuple[str, str]] | None = None,
    unlike: float = 0.0,
) -> Iterator[tuple[list[str], Regime]]:
    from ltbench.benchmarks.analysis.statistics.simulation import EFFECTS, IMAGE_EFFECTS, SIZES, TRIAL_EFFECTS, Regime

    for name, each, (trial, image) in itertools.product(sizes, trials, effects or EFFECTS):
        regime = Regime(SIZES[name], each, *TRIAL_EFFECTS[trial], IMAGE_EFFECTS[image], unlike=unlike)
        yield [name, str(each), trial, image], regime


def _lesion_regimes(trials: Sequence[int]) -> Iterator[tuple[list[str], Regime]]:
    from ltbench.benchmarks.analysis.statistics.simulation import IMAGE_EFFECTS, TRIAL_EFFECTS, Regime

    for correlation, each, image in itertools.product(_LESION_CORRELATIONS, trials, ("usual", "strong")):
        regime = Regime((99,) * 8, each, *TRIAL_EFFECTS["usual"], IMAGE_EFFECTS[image], _LESION_IMAGES, correlation)
        yield [f"correlation {correlation}", str(each), "usual", image], regime


def _patient_regimes(trials: Sequence[int]) -> Iterator[tuple[list[str], Regime]]:
    from ltbench.benchmarks.analysis.statistics.simulation import IMAGE_EFFECTS, TRIAL_EFFECTS, Regime

    for correlation, each in itertools.product(_LESION_CORRELATIONS, trials):
        effects = (*TRIAL_EFFECTS["none"], IMAGE_EFFECTS["strong"])
        regime = Regime((_PATIENTS,) * 8, each, *effects, lesion_correlation=correlation, patients=True)
        yield [f"correlation {correlation}", str(each), "none", "strong"], regime


def _print(mapped: _Map, title: str, rates: _Rates, regimes: Iterable[tuple[list[str], Regime]]) -> None:
    """Print a table when all its lines are simulated; how many are is shown meanwhile."""
    from tabulate import tabulate

    from ltbench.files import ProgressLine

    listed, rows, headers = list(regimes), [], ["classes x images", "trials", "trial effect", "image effect"]
    with ProgressLine(title, len(listed), unit="regimes") as progress:
        found = mapped(rates, [regime for _, regime in listed])
        for (keys, _), own in zip(listed, found, strict=True):
            rows.append([*keys, *("n/a" if rate != rate else f"{rate:.1f}" for rate in own.values())])
            headers[4:] = list(own)
            progress.update()
    if rows:
        print(f"{title}\n\n{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n", flush=True)


if __name__ == "__main__":
    script(__file__)
