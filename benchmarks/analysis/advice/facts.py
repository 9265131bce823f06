"""What the finished trials of a setting decide for whoever has to choose a method, and what they leave open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ltbench.benchmarks.analysis.advice.costs import multiple_of, networks_of, steps_of
from ltbench.benchmarks.analysis.metrics import wilson_interval
from ltbench.benchmarks.analysis.notes import title_of
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import Panel, Setting, compare
from ltbench.benchmarks.analysis.statistics.comparisons import LEVEL, Comparison, detectable, tukey
from ltbench.benchmarks.analysis.statistics.planning import growth, images_for_recall

HALF_WIDTH = 0.1
"""Of the interval of a recall, beyond which the test images of its class are too few."""
CHEAPER = 0.8
"""Share of the best method's forward passes up to which another one counts as cheaper."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MethodAdvice:
    """A method beside the best one and the baseline.

    Attributes
    ----------
    name : of its row
    accuracy, low, high : mean per-class accuracy with its 95 % interval
    best, baseline : its comparisons with the best row, adjusted as by Tukey, and with the baseline, as by Dunnett
    train_seconds, optimizer_steps, parameters : multiples of the baseline's, NaN where they are not known
    forward_images : images through a backbone, mean over trials
    networks : what its docstring says of them where there are several
    """

    name: str
    accuracy: float
    low: float
    high: float
    best: Comparison
    baseline: Comparison
    train_seconds: float
    optimizer_steps: float
    parameters: float
    forward_images: float
    networks: str | None

    @property
    def may_be_best(self) -> bool:
        """Whether it is the best or not told apart from it, also where it was not tested."""
        return self.best.reference or not self.best.p_value < LEVEL

    @property
    def gains(self) -> bool:
        """Whether it is told apart from the baseline, and better."""
        return self.baseline.p_value < LEVEL and self.baseline.delta > 0


@dataclass(frozen=True)
class TwoBest:
    """Whether the two best methods are told apart, and what would do it.

    Attributes
    ----------
    first, second : names
    difference, p_value : in accuracy, and adjusted as by Tukey; NaN where it is not tested
    detectable : difference to the best that would be seen in 80 % of cases; NaN where nothing is tested
    images, trials : test images and trials of each that would show this difference in 80 % of cases, each by itself:
        infinite where they alone cannot, NaN where that is not known
    """

    first: str
    second: str
    difference: float
    p_value: float
    detectable: float
    images: float
    trials: float


@dataclass(frozen=True)
class ClassAdvice:
    """A class of which the recall of the best method is not known to ten points.

    Attributes
    ----------
    name : of the class
    test_images : of a trial
    recall, half_width : and half of its 95 % interval; NaN without a test image
    needed_images : test images that give ±10 points for one trained network
    varies : whether it differs from trial to trial by more than so few images explain, so that trials are too few
    """

    name: str
    test_images: int
    recall: float
    half_width: float
    needed_images: int
    varies: bool


@dataclass(frozen=True)
class WorstClass:
    """The class with the lowest recall of the best method, and what its images are mostly taken for.

    Attributes
    ----------
    name, recall : of the class, and its mean over trials
    taken_for, share : the other class that is most often predicted, and of how many of its images; None where all are
        right
    """

    name: str
    recall: float
    taken_for: str | None
    share: float


@dataclass(frozen=True)
class Recommended:
    """A method to take.

    Attributes
    ----------
    method : name of its row
    open : whether the trials leave it open that another one is better
    reason : in a sentence
    """

    method: str
    open: bool
    reason: str


@dataclass(frozen=True)
class Advice:
    """What the methods of one setting that have the same trials decide.

    Attributes
    ----------
    title : data, split and protocol
    baseline : name of the row that gains refer to
    has_baseline : whether a trial of it is there
    trials, test_images : of each method
    folds : how many there are, of which the trials are some, pooled; 0 where trials are not folds
    methods : best first
    classes : whose recall is not known well enough, least known first
    left_out : methods of other trials
    """

    title: str
    baseline: str
    has_baseline: bool
    trials: int
    test_images: int
    folds: int
    methods: tuple[MethodAdvice, ...]
    two_best: TwoBest
    classes: tuple[ClassAdvice, ...]
    worst: WorstClass
    recommended: Recommended
    left_out: tuple[str, ...]

    @property
    def is_tested(self) -> bool:
        """Whether methods could be compared at all."""
        return _any_tested(self.methods)


def _any_tested(methods: Sequence[MethodAdvice]) -> bool:
    return any(not math.isnan(method.best.p_value) for method in methods)


def advice_of(settings: Sequence[Setting], baseline: str) -> list[Advice]:
    """Return the advice of each setting that has two methods of the same trials.

    Parameters
    ----------
    baseline : name of the row that gains refer to
    """
    found = []
    for setting in settings:
        panels = setting.panels()
        chosen = next((panel for panel in panels if len(panel.rows) > 1), None)
        if chosen is not None:
            found.append(_advice(chosen, baseline, [row.name for row in setting.rows if row not in chosen.rows]))
    return found


def _advice(panel: Panel, baseline: str, left_out: Sequence[str]) -> Advice:
    rows = panel.rows
    reference = next((row for row in panel.setting.rows if row.name == baseline), None)
    to_best, to_baseline = compare(rows, rows[0], best=True), compare(rows, reference)
    methods = tuple(
        _method(row, reference, best, gain) for row, best, gain in zip(rows, to_best, to_baseline, strict=True)
    )
    images = len(rows[0].labels)
    return Advice(
        title=title_of(panel.setting.result),
        baseline=baseline,
        has_baseline=reference is not None,
        trials=len(panel.trials),
        test_images=images,
        folds=rows[0].folds,
        methods=methods,
        two_best=_two_best(methods, len(rows[0].summaries), images),
        classes=_unknown_classes(rows[0]),
        worst=_worst_class(rows[0]),
        recommended=_recommended(methods, baseline, has_baseline=reference is not None),
        left_out=tuple(left_out),
    )


def _method(row: Row, baseline: Row | None, best: Comparison, gain: Comparison) -> MethodAdvice:
    return MethodAdvice(
        name=row.name,
        accuracy=row.accuracy.value,
        low=row.accuracy.low,
        high=row.accuracy.high,
        best=best,
        baseline=gain,
        train_seconds=_seconds(row, baseline),
        optimizer_steps=steps_of(row, baseline),
        parameters=multiple_of(row, baseline, "parameters"),
        forward_images=float(row.costs("forward_images").mean()),
        networks=networks_of(row),
    )


def _seconds(row: Row, baseline: Row | None) -> float:
    """Return how many times the baseline's a training took; NaN where one of them may have had other work beside it."""
    own = all(each.has_own_times for each in (row, baseline) if each is not None)
    return multiple_of(row, baseline, "train_seconds") if own else math.nan


def _two_best(methods: Sequence[MethodAdvice], trials: int, images: int) -> TwoBest:
    made = [method.best for method in methods]
    second = methods[1].best
    needed = growth(second, len(methods), tukey, trials)
    return TwoBest(
        first=methods[0].name,
        second=methods[1].name,
        difference=abs(second.delta),
        p_value=second.p_value,
        detectable=detectable(made, tukey),
        images=float(np.ceil(needed.images * images)),
        trials=float(np.ceil(needed.trials * trials)),
    )


def _unknown_classes(row: Row) -> tuple[ClassAdvice, ...]:
    """Return the classes whose recall has a half-width above ten points, the widest first."""
    recalls, found = row.recalls().mean(axis=0), []
    for label, name in enumerate(row.result.data.class_names):
        tested, recall = int(row.test_counts[0, label]), float(recalls[label])
        of_one = row.inflation * _images_of_lesion(row, label)
        alone = _half(*wilson_interval(recall * tested / of_one, tested / of_one)) if tested else math.nan
        estimate = row.class_estimate(label)
        half_width = alone if math.isnan(estimate.low) else _half(estimate.low, estimate.high)
        if half_width <= HALF_WIDTH:
            continue
        needed = images_for_recall(recall if tested else 0.5, tested / of_one, HALF_WIDTH)
        own = row.recalls()[:, label]
        of_trials = own.var(ddof=1) / len(own) if len(own) > 1 else 0.0
        enough = math.ceil(needed * of_one)
        of_images = max(recall * (1 - recall) * of_one / tested, _ROUNDING) if tested else math.inf
        found.append(ClassAdvice(name, tested, recall, half_width, enough, of_trials > of_images or enough <= tested))
    return tuple(sorted(found, key=lambda own: -np.nan_to_num(own.half_width, nan=np.inf)))


def _images_of_lesion(row: Row, label: int) -> float:
    """Return the mean number of test images of a lesion of a class: images of one lesion count as one."""
    own = row.labels == label
    return 1.0 if row.lesions is None or not own.any() else own.sum() / len(np.unique(row.lesions[own]))


def _half(low: float, high: float) -> float:
    return (high - low) / 2


def _worst_class(row: Row) -> WorstClass:
    names, recalls = row.result.data.class_names, row.recalls().mean(axis=0)
    label = int(np.nanargmin(recalls))
    predicted = np.concatenate([own.predicted[own.labels == label] for own in row.summaries])
    counts = np.bincount(predicted, minlength=len(names))
    total, counts[label] = counts.sum(), 0
    taken_for = names[int(counts.argmax())] if counts.any() else None
    return WorstClass(names[label], float(recalls[label]), taken_for, float(counts.max() / total))


def _recommended(methods: Sequence[MethodAdvice], baseline: str, *, has_baseline: bool) -> Recommended:
    """Return the best method, unless one that may be as good is cheaper, or no gain on the baseline is shown."""
    best = methods[0]
    candidates = [method for method in methods if method.best.reference or method.best.open]
    gaining = [method for method in candidates if method.gains]
    if has_baseline and not best.baseline.reference:
        if not gaining:
            return Recommended(baseline, True, "It is open whether any method is better than it")
        chosen = _cheapest(gaining)
    elif not _any_tested(methods):
        return Recommended(best.name, True, "It has the highest accuracy; nothing is tested against it")
    else:
        chosen = _cheapest(candidates)
    rivals = [own for own in candidates if own is not chosen and not (own.baseline.reference and chosen.gains)]
    if not rivals:
        return Recommended(chosen.name, False, "Every other method is told apart from it, and worse")
    if best is chosen:
        others = rivals[0].name if len(rivals) == 1 else f"one of {len(rivals)} others"
        return Recommended(best.name, True, f"It has the highest accuracy; it is open whether {others} is better")
    reason = f"It is open whether {best.name} is better"
    if best.forward_images * CHEAPER >= chosen.forward_images:
        reason += f", which takes {best.forward_images / chosen.forward_images:.1f} times its forward passes"
    return Recommended(chosen.name, True, reason)


def _cheapest(methods: Sequence[MethodAdvice]) -> MethodAdvice:
    """Return the first method, or the first that is cheaper than it."""
    limit = CHEAPER * methods[0].forward_images
    return next((method for method in methods[1:] if method.forward_images <= limit), methods[0])
