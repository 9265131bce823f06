"""Simulate how often intervals hold the truth, and how often comparisons see what is not there.

    ltbench coverage --replicates 1000

Four tables: intervals, intervals where several images are of one lesion, leaderboards of equal methods, and the power
of what tables call detectable. What is drawn is said in `analysis/simulation.py`. 1000 replicates take about an hour.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script

if TYPE_CHECKING:
    from ltbench.benchmarks.analysis.simulation import Regime

_LESION_IMAGES = 3
_LESION_CORRELATIONS = (0.3, 0.7)
_BOARDS = ("8 x 100", "14: 2575 to 3")
_BOARD_EFFECTS = (("none", "none"), ("usual", "usual"), ("strong", "usual"))


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
    parsed.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.analysis.simulation import SIZES, interval_rates, leaderboard_rates
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    for name in options.sizes or ():
        if name not in SIZES:
            raise unknown("test set", name, SIZES)
    if min(options.replicates, *options.trials) < 1 or options.seed < 0:
        raise UserError("--replicates and --trials must be at least 1, --seed at least 0")
    sizes, count, seed = options.sizes or list(SIZES), options.replicates, options.seed
    boards, several = [name for name in sizes if name in _BOARDS], [each for each in options.trials if each > 1]
    print(f"Percent of {count} replicates; coverage at 95 %, errors at 5 %; differences in points\n")
    intervals = list(_regimes(sizes, options.trials))
    _print("Intervals", ((keys, interval_rates(regime, count, seed)) for keys, regime in intervals))
    lesions = list(_lesion_regimes(options.trials))
    _print(
        f"Intervals, {_LESION_IMAGES} images a lesion, 8 classes of 33 lesions",
        ((keys, interval_rates(regime, count, seed)) for keys, regime in lesions),
    )
    equal = list(_regimes(boards, several, _BOARD_EFFECTS))
    _print("17 equal methods", ((keys, leaderboard_rates(regime, count, seed)) for keys, regime in equal))
    _print("One of 17 better than the baseline", _powers(boards, several, count, seed))
    return 0


def _regimes(
    sizes: Sequence[str], trials: Sequence[int], effects: Sequence[tuple[str, str]] | None = None
) -> Iterator[tuple[list[str], Regime]]:
    from ltbench.benchmarks.analysis.simulation import EFFECTS, IMAGE_EFFECTS, SIZES, TRIAL_EFFECTS, Regime

    for name, each, (trial, image) in itertools.product(sizes, trials, effects or EFFECTS):
        regime = Regime(SIZES[name], each, *TRIAL_EFFECTS[trial], IMAGE_EFFECTS[image])
        yield [name, str(each), trial, image], regime


def _lesion_regimes(trials: Sequence[int]) -> Iterator[tuple[list[str], Regime]]:
    from ltbench.benchmarks.analysis.simulation import IMAGE_EFFECTS, TRIAL_EFFECTS, Regime

    for correlation, each, image in itertools.product(_LESION_CORRELATIONS, trials, ("usual", "strong")):
        regime = Regime((99,) * 8, each, *TRIAL_EFFECTS["usual"], IMAGE_EFFECTS[image], _LESION_IMAGES, correlation)
        yield [f"correlation {correlation}", str(each), "usual", image], regime


def _powers(
    sizes: Sequence[str], trials: Sequence[int], replicates: int, seed: int
) -> Iterator[tuple[list[str], Mapping[str, float]]]:
    from ltbench.benchmarks.analysis.simulation import leaderboard_rates, power

    for keys, regime in _regimes(sizes, trials, [("usual", "usual")]):
        stated = leaderboard_rates(regime, max(replicates // 10, 1), seed)["detectable, baseline"]
        gain = stated / 100 / _slope(regime)
        found, difference = power(regime, gain, replicates, seed)
        yield keys, {"stated detectable": stated, "true difference": 100 * difference, "found": 100 * found}


def _slope(regime: Regime) -> float:
    """Return the mean accuracy that a small gain in logits adds, per logit."""
    import numpy as np

    _, (more, base) = regime.draw(np.random.default_rng(0), (0.2, 0.0))
    return float(more.mean() - base.mean()) / 0.2


def _print(title: str, lines: Iterator[tuple[list[str], Mapping[str, float]]]) -> None:
    """Print a table when all its lines are simulated; how many are is shown meanwhile."""
    from tabulate import tabulate

    from ltbench.files import ProgressLine

    rows, headers = [], ["classes x images", "trials", "trial effect", "image effect"]
    with ProgressLine(title, None, unit="regimes") as progress:
        for keys, rates in lines:
            rows.append([*keys, *("n/a" if rate != rate else f"{rate:.1f}" for rate in rates.values())])
            headers[4:] = list(rates)
            progress.update()
    if rows:
        print(f"{title}\n\n{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n", flush=True)


if __name__ == "__main__":
    script(__file__)
