"""Simulation: intervals hold the truth, and comparisons keep their error rate. The full tables are a command's.

`python benchmarks/coverage.py` prints all regimes. Bounds here leave room for the sampling error of few replicates.
"""

import numpy as np
import pytest

from ltbench.benchmarks import coverage
from ltbench.benchmarks.analysis.simulation import (
    IMAGE_EFFECTS,
    SIZES,
    TRIAL_EFFECTS,
    Regime,
    interval_rates,
    leaderboard_rates,
    power,
)


def regime(sizes: str, trials: int, trial: str, image: str, *lesions: float) -> Regime:
    return Regime(SIZES[sizes], trials, *TRIAL_EFFECTS[trial], IMAGE_EFFECTS[image], *lesions)


@pytest.mark.parametrize("effects", [("usual", "usual"), ("strong", "strong")])
@pytest.mark.parametrize(("sizes", "trials"), [("8 x 100", 3), ("8 x 30", 5), ("14: 2575 to 3", 3)])
def test_intervals_hold_the_truth(sizes: str, trials: int, effects: tuple[str, str]) -> None:
    rates = interval_rates(regime(sizes, trials, *effects), 600, seed=0)
    assert 93 <= rates["mean"] <= 97.5 and 92.5 <= rates["difference"] <= 97.5 and 3 <= rates["rejections"] <= 7


@pytest.mark.parametrize("effects", [("none", "none"), ("none", "strong"), ("strong", "usual")])
def test_intervals_of_one_trial(effects: tuple[str, str]) -> None:
    """With trial effects, two networks of equally good methods do differ, and the test may say so."""
    rates = interval_rates(regime("8 x 100", 1, *effects), 600, seed=0)
    assert 93 <= rates["mean"] <= 97.5
    assert effects[0] == "strong" or 3 <= rates["rejections"] <= 7


@pytest.mark.parametrize("correlation", [0.3, 0.7])
def test_images_of_a_lesion_are_not_taken_for_independent(correlation: float) -> None:
    rates = interval_rates(regime("8 x 30", 5, "none", "strong", 3, correlation), 600, seed=0)
    assert rates["mean"] >= 92.5 and rates["by image"] < rates["mean"] - 3


@pytest.mark.parametrize("effects", [("none", "none"), ("usual", "usual"), ("strong", "usual")])
@pytest.mark.parametrize("trials", [2, 3, 5])
def test_equal_methods_are_rarely_told_from_each_other(trials: int, effects: tuple[str, str]) -> None:
    """Holm's adjustment of t-tests did it in 15 % of leaderboards of three trials, and in 33 % for the best row."""
    rates = leaderboard_rates(regime("8 x 30", trials, *effects), 250, seed=0)
    assert rates["wrong, baseline"] <= 7.5 and rates["wrong, best"] <= 7.5
    assert 0 < rates["best too high"] < rates["detectable, baseline"] < rates["detectable, best"]


def test_what_tables_call_detectable_is_found_in_four_of_five_cases() -> None:
    usual = regime("8 x 30", 5, "usual", "usual")
    stated = leaderboard_rates(usual, 30, seed=1)["detectable, baseline"]
    found, difference = power(usual, 0.565, 200, seed=0)
    assert 100 * difference == pytest.approx(stated, rel=0.05) and 0.7 < found < 0.9


def test_the_truth_is_what_many_draws_have() -> None:
    some = regime("8 x 30", 3, "strong", "strong", 3, 0.5)
    rng = np.random.default_rng(0)
    drawn = [some.draw(rng, (0.4, 0.0)) for _ in range(600)]
    means = np.array([scores.sum(axis=2).mean(axis=1) for scores, _ in drawn])
    error = means.std(axis=0, ddof=1) / np.sqrt(len(means))
    assert (np.abs(means.mean(axis=0) - drawn[0][1].mean(axis=1)) < 4 * error).all()


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert coverage.main(["--replicates", "2", "--trials", "1", "2", "--sizes", "8 x 100"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| classes x images ") == 4
    assert "n/a" in printed and "nan" not in printed
    assert coverage.main(["--replicates", "0"]) != 0
