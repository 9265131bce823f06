"""Simulate how often the intervals hold the truth, and how often the paired test sees what is not there.

    ltbench coverage --replicates 1000

The default takes 20 to 30 minutes on one core, `--replicates 50` one to two.

What is drawn, and which other intervals stand beside ours, is said in `analysis/simulation.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script


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
    """Print the table; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    import itertools

    from tabulate import tabulate

    from ltbench.benchmarks.analysis.simulation import EFFECTS, IMAGE_EFFECTS, SIZES, TRIAL_EFFECTS, Regime, simulate
    from ltbench.errors import UserError
    from ltbench.files import Progress
    from ltbench.registry import unknown

    for name in options.sizes or ():
        if name not in SIZES:
            raise unknown("test set", name, SIZES)

    if min(options.replicates, *options.trials) < 1 or options.seed < 0:
        raise UserError("--replicates and --trials must be at least 1, --seed at least 0")
    rows = []
    regimes = list(itertools.product(options.sizes or SIZES, options.trials, EFFECTS))
    with Progress("simulating", len(regimes), unit="regimes") as progress:
        for name, trials, (trial, image) in regimes:
            regime = Regime(SIZES[name], trials, *TRIAL_EFFECTS[trial], IMAGE_EFFECTS[image])
            rates = simulate(regime, options.replicates, options.seed)
            shown = [f"{100 * rate:.1f}" for rate in (*rates.coverage, *rates.rejections)]
            rows.append([name, trials, trial, image, *(cell.replace("nan", "n/a") for cell in shown)])
            progress.update()
    print(f"Percent of {options.replicates} replicates; coverage at 95 %, rejections of equal methods at 5 %")
    headers = ["classes x images", "trials", "trial effect", "image effect", "coverage", "bootstrap", "t over trials"]
    headers += ["rejections", "bootstrap", "t over trials"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    script(__file__)
