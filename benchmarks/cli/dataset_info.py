"""What is known of datasets: the table of all, and one in full."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from ltbench.benchmarks.cli.markdown import github_table
from ltbench.datasets import registry
from ltbench.options import allowed, shown

if TYPE_CHECKING:
    from ltbench.datasets.base import Source

OPTION_HEADERS = ("--dataset-option", "default", "allowed", "meaning")
_OWN = "yours"


def datasets_table() -> str:
    """Return all datasets as a Markdown table: name, classes, images, natural ratio, licence, how to get it."""
    rows = []
    for name in registry.available():
        dataset = registry.get(name)
        counts = list((dataset.expected_counts or {}).values())
        classes = len(getattr(dataset, "class_names", ())) or ""
        images = f"{sum(counts):,}" if counts else ""
        rows.append([f"`{name}`", classes, images, _ratio(counts), _licence(name), how_to_get(name)])
    headers = ["name", "classes", "images", "natural ratio", "licence", "how to get it"]
    table = github_table(rows, headers)
    return f"{table}\n\nempty: depends on the files, or drawn at will; for details: `ltbench data info NAME`"


def how_to_get(name: str) -> str:
    """Return how a user comes by a dataset, in a few words."""
    dataset = registry.get(name)
    if dataset.remotes():
        return f"`ltbench data download {name}`"
    if getattr(dataset, "licence", "") == _OWN:
        return "your own files"
    return dataset.website if "found_at" in vars(dataset) else "embedded"


def describe(name: str) -> str:
    """Return what the files say of a dataset: its docstrings, facts, and the options of its constructor."""
    dataset = registry.get(name)
    facts = {
        "licence": _licence(name),
        "citation": dataset.citation,
        "website": dataset.website,
        "how to get it": how_to_get(name),
        "default split": dataset.default_split,
        "default ratio": dataset.default_ratio,
        "largest class": dataset.default_n_max,
        "val images a class": _held_out(dataset.default_val_per_class, "a tenth"),
        "test images a class": _held_out(dataset.default_test_per_class, "a fifth"),
        "preset": dataset.preset,
    }
    lines = [name, "=" * len(name), registry.docstring(name), "", inspect.cleandoc(dataset.__doc__ or ""), ""]
    lines.append(tabulate([[key, value] for key, value in facts.items() if value != ""], tablefmt="plain"))
    options = option_rows(name)
    if options:
        lines += ["", github_table(options, OPTION_HEADERS)]
    return "\n".join(lines)


def option_rows(name: str) -> list[list[str]]:
    """Return a dataset's options, a row each, in the columns of `OPTION_HEADERS`."""
    return [
        [f"{each.name}=", shown(each.default), allowed(each), each.metadata.get("help", "")]
        for each in fields(registry.get(name).Options)
    ]


def counts_table(source: Source) -> str:
    """Return the images of each class as found on disk, beside what is known of the whole dataset."""
    labels, classes = source.labels, len(source.class_names)
    found = {
        "in the tables": np.bincount(labels, minlength=classes).tolist(),
        "images there": np.bincount(labels[source.present], minlength=classes).tolist(),
    }
    where = f" in {source.root}" if source.root else ""
    return "\n".join([f"{source.title}{where}", "", _class_table(source, found), *source.notes])


def expected_table(name: str) -> str:
    """Return what is known of the classes of a dataset that is not on disk; "" where nothing is."""
    dataset = registry.get(name)
    return "" if dataset.expected_counts is None and dataset.groups is None else _class_table(dataset, {})


def _class_table(dataset: Source | type[Source], found: Mapping[str, Sequence[int]]) -> str:
    """Return a table of classes: group, images in the whole dataset, and columns of what was found, [K] each."""
    names, expected = dataset.class_names, dataset.expected_counts or {}
    counts = {"whole dataset": [expected.get(name) for name in names], **found}
    group_of = {label: group for group, labels in (dataset.groups or {}).items() for label in labels}
    groups = {"group": [group_of.get(label) for label in range(len(names))]} if group_of else {}
    columns = {"class": names, **groups, **counts}
    known = [[count for count in column if count is not None] for column in counts.values()]
    blank = [None] * len(groups)
    rows = [
        *zip(*columns.values(), strict=True),
        ["all classes", *blank, *(sum(column) if column else None for column in known)],
        ["imbalance ratio", *blank, *map(_ratio, known)],
    ]
    alignment = ["right" if header in counts else "left" for header in columns]
    return github_table(rows, list(columns), alignment)


def licence_lines(dataset: type[Source]) -> list[str]:
    """Return what a user is to know before a download."""
    facts = {"licence": _licence(dataset.name), "cite": dataset.citation, "from": dataset.website}
    return [f"{key}: {value}" for key, value in facts.items() if value]


def _licence(name: str) -> str:
    return registry.details(name).get("Licence", "").rstrip(".")


def _held_out(number: int | None, share: str) -> str:
    return f"{share} of each class" if number is None else str(number)


def _ratio(counts: list[int]) -> str:
    held = [count for count in counts if count]
    return f"{max(held) / min(held):.4g}" if held else ""
