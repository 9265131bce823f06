"""What may share a table, and in one line why the rest does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.records import Result
from ltbench.benchmarks.analysis.standings import Row, Setting


def apart(settings: Sequence[Setting]) -> list[tuple[Setting, Sequence[Row], list[str]]]:
    """Return what has a table of its own: setting, rows of the same trials, and lines that say why it is apart."""
    found = []
    for number, setting in enumerate(settings):
        near = [other for other in settings[:number] if _place(other) == _place(setting)]
        why = [why_apart(setting.result, near[0].result)] if near else []
        found += [(setting, rows, [*why, *trials]) for rows, trials in _by_trials(setting.by_trials())]
    return found


def _place(setting: Setting) -> tuple[Any, ...]:
    return setting.result.data.dataset, setting.result.data.ratio


def _by_trials(groups: Sequence[Sequence[Row]]) -> list[tuple[Sequence[Row], list[str]]]:
    return [(rows, [_other_trials(rows)] if len(groups) > 1 else []) for rows in groups]


def _other_trials(rows: Sequence[Row]) -> str:
    return f"Trials {', '.join(map(str, rows[0].trials))}: rows of other trials are not mixed in."


def families(
    settings: Sequence[Setting],
) -> list[tuple[dict[float, tuple[Setting, Sequence[Row]]], list[str]]]:
    """Return what shares a table of ratios: for each ratio a setting and its rows of the same trials, and why apart.

    Settings share one if nothing but the ratio differs: data, kind of split, largest class, test images a class and
    protocol are the same. Where a ratio has two splits all the same, the second goes to a table of its own.
    """
    families: dict[tuple[Any, ...], dict[float, tuple[Setting, Sequence[Row]]]] = {}
    for setting in settings:
        result = setting.result
        data = result.data
        key: tuple[Any, ...] = (data.dataset, data.variant, data.split, result.protocol_digest)
        tested = np.bincount(setting.rows[0].labels).tolist()
        key += (max(result.data.class_counts), *tested)
        for rows in setting.by_trials():
            copy = 0
            while result.data.ratio in families.get((key, rows[0].trials, copy), {}):
                copy += 1
            families.setdefault((key, rows[0].trials, copy), {})[result.data.ratio] = (setting, rows)
    ordered = sorted(families, key=lambda key: (str(key[0]), -len(key[1]), key[1:]))
    firsts = {key: next(iter(families[key].values())) for key in ordered}
    found = []
    for number, key in enumerate(ordered):
        setting, rows = firsts[key]
        near = [
            other for other in ordered[:number] if firsts[other][0].result.data.dataset == setting.result.data.dataset
        ]
        why = []
        if near and near[0][1] != key[1]:
            why.append(_other_trials(rows))
        if near and (near[0][0], near[0][2]) != (key[0], key[2]):
            why.append(why_apart(setting.result, firsts[near[0]][0].result))
        found.append((families[key], why))
    return found


def why_apart(result: Result, other: Result) -> str:
    """Return one line that says in what two results differ that must not be mixed."""
    differing = [
        f"{name} {mine or 'none'}, not {others or 'none'}"
        for name, mine, others in (
            ("variant", result.data.variant, other.data.variant),
            ("split", result.data.split, other.data.split),
        )
        if mine != others
    ]
    protocol, another = dict(result.protocol), dict(other.protocol)
    differing += [
        f"{name} {value}, not {another.get(name)}" for name, value in protocol.items() if value != another.get(name)
    ]
    if result.split_digest != other.split_digest and result.data.ratio == other.data.ratio:
        differing.append(f"images of split {result.split_digest[:8]}, not {other.split_digest[:8]}")
    elif result.data.pixels != other.data.pixels and result.data.ratio == other.data.ratio:
        differing.append("other pixels of the same images")
    if max(result.data.class_counts) != max(other.data.class_counts):
        differing.append(f"largest class {max(result.data.class_counts)}, not {max(other.data.class_counts)}")
    return f"Not mixed with an earlier table: {'; '.join(differing) or 'test images differ'}."
