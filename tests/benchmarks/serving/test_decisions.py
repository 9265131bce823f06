"""Priors, thresholds and sets from validation, on networks that are right by construction."""

import math

import numpy as np
import pytest

from ltbench.benchmarks.analysis.metrics import wilson_interval
from ltbench.benchmarks.analysis.reliability.conformal import conformal_quantile
from ltbench.benchmarks.serving.decisions import Proportion, Wanted, reached, set_limits, threshold
from ltbench.benchmarks.serving.priors import TRAINING, UNIFORM, calibration_for, shares, source_prior, stated_prior
from ltbench.errors import UserError

COUNTS, NAMES = (80, 15, 5), ("a", "b", "c")
SHARES = np.array(COUNTS) / 100


def drawn(prior: np.ndarray, number: int, believed: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels under a prior, and logits of the Bayes rule of unit Gaussians under the prior that is believed."""
    rng = np.random.default_rng(seed)
    labels, means = rng.choice(3, size=number, p=prior), 1.5 * np.eye(3)
    points = means[labels] + rng.normal(size=(number, 3))
    distances = ((points[:, None] - means) ** 2).sum(2)
    return labels, (-distances / 2 + np.log(believed)).astype(np.float32)


@pytest.mark.parametrize(("name", "believed"), [(TRAINING, SHARES), (UNIFORM, np.full(3, 1 / 3))])
@pytest.mark.parametrize("balanced", [True, False])
def test_validation_tells_which_prior_scores_stand_for(name: str, believed: np.ndarray, balanced: bool) -> None:
    labels, logits = drawn(np.full(3, 1 / 3) if balanced else SHARES, 600, believed)
    source = source_prior(labels, 2 * logits, COUNTS)  # overconfident by a factor of 2
    assert source.name == name and source.temperature == pytest.approx(2, abs=0.3)
    assert source.losses[name] == min(source.losses.values())


def test_probabilities_for_another_prior_are_reweighted_and_calibrated() -> None:
    target = np.array([0.1, 0.2, 0.7])
    source = source_prior(*drawn(np.full(3, 1 / 3), 2000, SHARES), COUNTS)
    labels, logits = drawn(target, 4000, SHARES, seed=1)
    found = calibration_for(target, source, COUNTS).probabilities(logits)
    plain = np.exp(logits.astype(np.float64) / source.temperature)
    expected = plain / plain.sum(1, keepdims=True) * target / SHARES
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(found.mean(0), np.bincount(labels) / 4000, atol=0.02)
    none = calibration_for(np.array([0.5, 0.5, 0.0]), source, COUNTS).probabilities(logits)
    assert (none[:, 2] == 0).all() and np.allclose(none.sum(1), 1)


def test_a_class_without_validation_images_leaves_the_prior_defined() -> None:
    labels, logits = drawn(np.array([0.5, 0.5, 0.0]), 400, SHARES)
    source = source_prior(labels, logits, COUNTS)
    assert source.name == TRAINING and math.isfinite(source.losses[UNIFORM])


def test_stated_priors() -> None:
    assert stated_prior(["uniform"], {}, NAMES, COUNTS).tolist() == [1 / 3] * 3
    assert stated_prior(["training"], {}, NAMES, COUNTS).tolist() == shares(TRAINING, COUNTS).tolist()
    rest = stated_prior(["c=0.24"], {"c": 0.24}, NAMES, COUNTS)
    np.testing.assert_allclose(rest, [0.76 * 80 / 95, 0.76 * 15 / 95, 0.24])
    for values, reason in (
        ({"d": 0.1}, "unknown class 'd'"),
        ({"a": 1.5}, "a share is from 0 to 1"),
        ({"a": 0.6, "b": 0.6}, "sum to 1.2, which must be at most 1"),
        ({"a": 0.2, "b": 0.2, "c": 0.2}, "sum to 0.6, which must be 1"),
    ):
        with pytest.raises(UserError, match=reason):
            stated_prior([], values, NAMES, COUNTS)
    with pytest.raises(UserError, match="takes CLASS=SHARE"):
        stated_prior(["balanced"], {}, NAMES, COUNTS)


@pytest.mark.parametrize("kind", ["sensitivity", "specificity"])
@pytest.mark.parametrize("share", [0.05, 0.8, 0.95, 1.0])
def test_thresholds_reach_what_is_wanted_and_no_other_does_better(kind: str, share: float) -> None:
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 70), rng.integers(0, 30, 70) / 30  # with ties
    probabilities = np.stack([1 - scores, scores], axis=1)
    value = threshold(Wanted("b", kind, share), 1, labels, probabilities)
    got = {}
    for each in (*np.unique(scores), np.inf):
        own = reached(each, 1, labels, probabilities)
        got[each] = {
            "sensitivity": own.sensitivity.right / own.sensitivity.count,
            "specificity": own.specificity.right / own.specificity.count,
        }
    (other,) = {"sensitivity", "specificity"} - {kind}
    assert got[value][kind] >= share - 1e-12
    assert got[value][other] == max(own[other] for own in got.values() if own[kind] >= share - 1e-12)


def test_images_of_one_lesion_are_worth_less_than_as_many_lesions() -> None:
    right = np.array([True] * 8 + [False] * 4)
    alone, pairs = Proportion.of(right), Proportion.of(right, np.repeat(np.arange(6), 2).astype(str))
    assert (alone.right, alone.count, alone.independent) == (8, 12, 12)
    assert (pairs.right, pairs.count, pairs.independent) == (8, 12, 6)
    assert Proportion.of(right, np.array(["one"] * 12)).independent == 1
    assert Proportion.of(right, np.array(["a"] * 6 + list("bcdefg"))).independent == pytest.approx(144 / 42)
    low, high = wilson_interval(4, 6)
    assert pairs.text() == f"66.7 % [{100 * low:.1f}, {100 * high:.1f}]"
    assert Proportion.of(np.zeros(0, dtype=bool)).text() == "n/a"
    labels, probabilities = np.array([0, 0, 1, 1]), np.eye(2)[[0, 1, 1, 1]]
    own = reached(0.5, 1, labels, probabilities, np.array(["x", "x", "y", "z"]))
    assert (own.sensitivity.independent, own.specificity.independent) == (2, 1)


def test_a_class_without_validation_images_has_no_threshold() -> None:
    with pytest.raises(UserError, match=r"c at sensitivity 0\.9: no validation image is of this class"):
        threshold(Wanted("c", "sensitivity", 0.9), 2, np.array([0, 1]), np.full((2, 3), 1 / 3))


def test_sets_are_the_standard_ones_and_weights_keep_the_promise_under_another_prior() -> None:
    uniform, target = np.full(3, 1 / 3), np.array([0.05, 0.15, 0.8])
    labels, logits = drawn(uniform, 3000, uniform)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    limits = set_limits(labels, probabilities, 0.1)
    true = probabilities[np.arange(3000), labels]
    assert limits is not None and (limits == -conformal_quantile(-true, 0.1)).all()
    assert set_limits(labels[:8], probabilities[:8], 0.1) is None
    assert set_limits(labels[:9], probabilities[:9], 0.1) is not None
    weighted = set_limits(labels, probabilities, 0.1, target / uniform)
    others, logits = drawn(target, 6000, uniform, seed=2)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert weighted is not None
    covered = (probabilities >= weighted)[np.arange(6000), others].mean()
    assert covered == pytest.approx(0.9, abs=0.02)


def test_a_class_without_validation_images_is_in_every_set() -> None:
    uniform = np.full(3, 1 / 3)
    labels, logits = drawn(uniform, 300, uniform)
    probabilities = np.exp(logits[labels < 2])
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = labels[labels < 2]
    usual, limits = (set_limits(labels, probabilities, 0.1, own) for own in (None, np.array([1.0, 1.0, np.inf])))
    assert usual is not None and limits is not None
    assert limits.tolist() == [*usual[:2], 0.0]
    few = np.sort(np.concatenate([np.flatnonzero(labels == 0)[:50], np.flatnonzero(labels == 1)[:5]]))
    frequent = set_limits(labels[few], probabilities[few], 0.1, np.array([0.1, 10.0, 0.0]))  # 63 of 55 are needed
    assert frequent is not None and frequent[1] == 0 < frequent[0]
