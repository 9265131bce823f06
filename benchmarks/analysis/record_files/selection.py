"""The records of some data sets, methods and ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ltbench.benchmarks.analysis.record_files.description import DataDescription
from ltbench.benchmarks.analysis.records import Record
from ltbench.datasets import registry as registered_datasets
from ltbench.datasets.base import NATURAL
from ltbench.errors import UserError
from ltbench.methods import registry as registered_methods
from ltbench.registry import unknown


def select(
    records: Iterable[Record],
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    ratios: Sequence[float | str | None] | None = None,
    protocol: str = "",
) -> list[Record]:
    """Return the records of some data sets, methods and ratios, by one protocol.

    Parameters
    ----------
    datasets, methods : names; None: all
    ratios : numbers, or `natural`; None: all
    protocol : first digits of the protocol's digest

    Raises
    ------
    UserError : a data set or method that no record has
    """
    left = list(records)
    for registry, wanted, known in (
        (registered_datasets, datasets, {record.result.data.dataset for record in left}),
        (registered_methods, methods, {record.result.method for record in left}),
    ):
        for name in wanted or ():
            if name in known:
                continue
            kind, there = registry.kind, sorted(known)
            if name in registry.available():
                raise UserError(f"no trial of the {kind} {name!r}; there are trials of: {', '.join(there)}")
            raise unknown(kind, name, there)
    return [
        record
        for record in left
        if (datasets is None or record.result.data.dataset in datasets)
        and (methods is None or record.result.method in methods)
        and (ratios is None or _has_ratio(record.result.data, ratios))
        and record.result.protocol_digest.startswith(protocol)
    ]


def _has_ratio(data: DataDescription, ratios: Sequence[float | str | None]) -> bool:
    return data.ratio in ratios or (data.natural and NATURAL in ratios)
