"""Advice in plain English, about ten lines a setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ltbench.benchmarks.analysis.advice.facts import HALF_WIDTH, Advice, MethodAdvice
from ltbench.benchmarks.analysis.rendering import fixed
from ltbench.benchmarks.analysis.statistics.comparisons import LEVEL, POWER, Comparison
from ltbench.errors import counted

ADJUSTED_BEST = "adjusted for all methods and for the best being chosen by looking"
ADJUSTED_BASELINE = "adjusted for all methods"
_P_DIGITS, _MOST_P_DIGITS = 3, 16
_NAMED = 5  # of a list, of which more are counted


def lines_of(advice: Advice) -> list[str]:
    """Return the advice of a setting as lines, its title first."""
    parts = (_best, _against_best, _against_baseline, _costs, _two_best, _classes, _worst, _left_out, _recommended)
    return [advice.title, *(line for part in parts if (line := part(advice)))]


def _best(advice: Advice) -> str:
    first = advice.methods[0]
    about = f"95 % interval {_percent(first.low)} to {_percent(first.high)}"
    folds = f"{advice.trials} of {advice.folds} folds, pooled" if advice.folds else counted(advice.trials, "trial")
    sizes = f"{folds}, {counted(advice.test_images, 'test image')}"
    found = f"{_percent(first.accuracy)} % mean per-class accuracy ({about}; {sizes})"
    return f"Highest of {len(advice.methods)} methods: {first.name}, {found}."


def _against_best(advice: Advice) -> str:
    first, *others = advice.methods
    if not advice.is_tested:
        return f"Nothing is tested against {first.name}: two trials of fewer than four methods are too few."
    told = [method for method in others if not method.may_be_best]
    still = [method for method in others if method.may_be_best]
    lists = [
        _group(f"Worse than {first.name}", told, lambda method: method.best),
        _group(f"Open whether worse than {first.name}", still, lambda method: method.best),
    ]
    return f"{' '.join(filter(None, lists))} These p are {ADJUSTED_BEST}."


def _against_baseline(advice: Advice) -> str:
    name = advice.baseline
    if not advice.has_baseline:
        return f"What the methods gain on {name} is unknown: no trial of it is finished."
    others = [method for method in advice.methods if not method.baseline.reference]
    if all(math.isnan(method.baseline.p_value) for method in others):
        return f"Nothing is tested against {name}: no trials in common, or too few."
    lists = [
        _group(f"Better than {name}", [own for own in others if own.gains], lambda method: method.baseline),
        _group(f"Worse than {name}", [own for own in others if _loses(own)], lambda method: method.baseline),
        _group(
            f"Open whether better or worse than {name}",
            [own for own in others if not (own.gains or _loses(own))],
            lambda method: method.baseline,
        ),
    ]
    return f"{' '.join(filter(None, lists))} These p are {ADJUSTED_BASELINE}.{_named_beforehand(advice)}"


def _named_beforehand(advice: Advice) -> str:
    """Return why the best method is told from the baseline, and the baseline not from the best; else nothing."""
    first, name = advice.methods[0], advice.baseline
    if not (first.gains and any(method.baseline.reference and method.best.open for method in advice.methods)):
        return ""
    reason = f"{name} was named beforehand, so a difference to it needs less than one to the best"
    return f" {reason}: {first.name} is told from it by this test, though not by the one above."


def _loses(method: MethodAdvice) -> bool:
    return method.baseline.p_value < LEVEL and method.baseline.delta < 0


def _costs(advice: Advice) -> str:
    if not advice.has_baseline:
        return ""
    gaining = [method for method in advice.methods if method.gains]
    shown = gaining or [method for method in advice.methods[:1] if not method.baseline.reference]
    if not shown:
        return ""
    texts = [_cost(method) for method in shown[:_NAMED]]
    texts += [f"{len(shown) - _NAMED} more"] if len(shown) > _NAMED else []
    return f"Points gained on {advice.baseline}, and cost beside it: {'; '.join(texts)}."


def _cost(method: MethodAdvice) -> str:
    several = f" (networks: {method.networks})" if method.networks else ""
    doubt = "" if method.gains else " (open)"
    costs = {
        "training time": method.train_seconds,
        "steps": method.optimizer_steps,
        "parameters": method.parameters,
    }
    gained = "n/a" if math.isnan(method.baseline.delta) else fixed(100 * method.baseline.delta, 1, "+")
    multiples = ", ".join(f"{multiple:.1f} x {name}" for name, multiple in costs.items() if not math.isnan(multiple))
    return f"{method.name}{several} {gained}{doubt} for {multiples or 'a cost not known'}"


def _two_best(advice: Advice) -> str:
    two = advice.two_best
    found = f"{two.first} and {two.second}, the two best, differ by {_percent(two.difference)} points"
    if math.isnan(two.p_value):
        return f"{found}, which is not tested; --trials 3 or more would allow it."
    if two.p_value < LEVEL:
        return f"{found} and are told apart ({_p(two.p_value)}, {ADJUSTED_BEST})."
    now = f"a true difference of {_percent(two.detectable)} points to the best would be seen in {_power()} now"
    ways = [_way(two.images, advice.test_images, "test image"), _way(two.trials, advice.trials, "trial")]
    means = ", or ".join(way for way in ways if way)
    if not two.difference:
        return f"{found}; {now}."
    is_single = advice.trials == 1 and not advice.folds
    single = "; one trial each compares these networks, not the methods" if is_single else ""
    return f"{found}; were this the true difference, {means} would show it in {_power()}{single}; {now}."


def _way(needed: float, there: int, noun: str) -> str:
    """Return how many of a thing are needed instead of those that are there; empty where that is not known."""
    if math.isnan(needed):
        return ""
    if math.isinf(needed):
        return f"no number of {noun}s alone"
    return f"about {_round(needed):,} {noun}s instead of {there:,}"


def _classes(advice: Advice) -> str:
    goal = f"±{100 * HALF_WIDTH:.0f} points"
    if not advice.classes:
        return f"The recall of every class is known to {goal}."
    few = [
        f"{own.name} {_known(own.half_width)} ({own.test_images:,}, {_round(own.needed_images):,} would do)"
        for own in advice.classes
        if not own.varies
    ]
    varying = [f"{own.name} {_known(own.half_width)}" for own in advice.classes if own.varies]
    about = f"to know the recall of {advice.methods[0].name} to {goal}"
    texts = [f"Too few test images {about}: {_listed(few)}."] if few else []
    texts += [f"Too few trials, which differ, {about}: {_listed(varying)}."] if varying else []
    return " ".join(texts)


def _known(half_width: float) -> str:
    return "n/a" if math.isnan(half_width) else f"±{_percent(half_width)}"


def _worst(advice: Advice) -> str:
    worst, method = advice.worst, advice.methods[0].name
    found = f"Worst class of {method}: {worst.name}, {_percent(worst.recall)} % right"
    if worst.taken_for is None:
        return f"{found}."
    return f"{found}, most often taken for {worst.taken_for} ({_percent(worst.share)} % of its images)."


def _left_out(advice: Advice) -> str:
    if not advice.left_out:
        return ""
    return f"Left out, of other trials: {_listed(advice.left_out)}."


def _recommended(advice: Advice) -> str:
    chosen = advice.recommended
    return f"Recommended: {chosen.method}. {chosen.reason}."


def _group(what: str, methods: Sequence[MethodAdvice], compared: Callable[[MethodAdvice], Comparison]) -> str:
    """Return a list of methods with the bound of their p-values; empty where there are none."""
    if not methods:
        return ""
    p_values = [p for method in methods if not math.isnan(p := compared(method).p_value)]
    bound = f" ({_bound(p_values)})" if p_values else ""
    return f"{what}: {_listed([method.name for method in methods])}{bound}."


def _bound(p_values: Sequence[float]) -> str:
    """Return what holds of all of some p-values: the largest of those that tell methods apart, else the smallest."""
    largest = max(p_values)
    if len(p_values) == 1:
        return _p(largest)
    return _p(largest, "≤") if largest < LEVEL else _p(min(p_values), "≥")


def _p(value: float, sign: str = "=") -> str:
    """Return a p-value of three digits, a bound rounded to its own side, and more where they would reach the level."""
    if value < 0.001:
        return "p < 0.001"
    rounding: Mapping[str, Callable[[float], int]] = {"=": round, "≤": math.ceil, "≥": math.floor}
    for digits in range(_P_DIGITS, _MOST_P_DIGITS):
        shown = rounding[sign](round(value * 10**digits, 6)) / 10**digits
        if (shown < LEVEL) == (value < LEVEL):
            break
    return f"p {sign} {shown:.{digits}f}"


def _power() -> str:
    return f"{100 * POWER:.0f} % of cases"


def _percent(share: float) -> str:
    return "n/a" if math.isnan(share) else f"{100 * share:.1f}"


def _round(count: float) -> int:
    """Return a number of things, rounded up to two digits that count."""
    unit = 10 ** max(len(str(int(count))) - 2, 0)
    return math.ceil(count / unit) * unit


def _listed(names: Iterable[str]) -> str:
    """Return names with commas, of many the first ones and how many there are besides."""
    every = list(names)
    shown = every if len(every) <= _NAMED + 1 else [*every[:_NAMED], f"{len(every) - _NAMED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
