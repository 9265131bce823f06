"""Rows as what tables and pictures compare: settings, rows of the same trials, differences between rows.

A setting is what results must share to be compared: data, split, ratio, protocol, threads of a trial on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.record_files.description import DataDescription
from ltbench.benchmarks.analysis.record_files.values import current_fields
from ltbench.benchmarks.analysis.records import Record, Result
from ltbench.benchmarks.analysis.rows import ACCURACY, ClassMean, Row, comparable, other_images
from ltbench.benchmarks.analysis.statistics.comparisons import UNKNOWN, Comparison, compared, dunnett, tukey
from ltbench.errors import counted
from ltbench.files import json_digest

BASELINE = "ce"
"""Row to which differences refer."""


def setting_key(data: DataDescription, split_digest: str, protocol_digest: str, threads: int) -> tuple[Any, ...]:
    """Return what two results must share to be compared.

    Parameters
    ----------
    threads : of a trial on the CPU, where sums depend on them by their last digits and accuracies by points; else 1
    """
    split = split_digest if data.varied_from is None else f"varied from {data.varied_from}"
    return (data.dataset, data.variant, data.ratio, data.split, split, protocol_digest, threads)


def key_of(result: Result) -> tuple[Any, ...]:
    """Return the `setting_key` of a result."""
    return setting_key(result.data, result.split_digest, result.protocol_digest, result.deciding_threads)


@dataclass(frozen=True)
class Panel:
    """Rows of one setting that have the same trials: what a table holds.

    Attributes
    ----------
    setting : of the rows
    rows : best mean per-class accuracy first
    notes : why the rows are not in a table with others, one line each
    """

    setting: Setting
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def trials(self) -> tuple[int, ...]:
        """Numbers of the trials."""
        return self.rows[0].trials


@dataclass(frozen=True)
class Setting:
    """Rows that may be compared.

    Attributes
    ----------
    rows : best mean per-class accuracy first
    differences : why the rows are not in a table with those of another setting, one line each
    doubts : which records were left out as copies, lie in another place or are of several versions of code or
        libraries, one line each
    """

    rows: tuple[Row, ...]
    differences: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Differences and doubts: what stands below a table of this setting alone."""
        return (*self.differences, *self.doubts)

    @property
    def result(self) -> Result:
        """A result, for what all of them share."""
        return self.rows[0].result

    @property
    def data(self) -> DataDescription:
        """What the rows were trained and tested on."""
        return self.result.data

    @property
    def baseline(self) -> Row | None:
        """The row of plain cross-entropy, if there is one."""
        return next((row for row in self.rows if row.name == BASELINE), None)

    def panels(self) -> list[Panel]:
        """Return the rows by the trials that they have, those with the most first."""
        by_trials: dict[tuple[int, ...], list[Row]] = {}
        for row in self.rows:
            by_trials.setdefault(row.trials, []).append(row)
        several = len(by_trials) > 1
        return [
            Panel(
                self,
                tuple(by_trials[trials]),
                (*self.notes, *([_other_trials(trials)] if several else []), *version_notes(by_trials[trials])),
            )
            for trials in sorted(by_trials, key=lambda trials: (-len(trials), trials))
        ]


@dataclass(frozen=True)
class Family:
    """Panels of which nothing but the ratio differs: what shares a table of ratios.

    Attributes
    ----------
    panels : by ratio
    notes : why they are not in a table with those of another family, one line each
    """

    panels: Mapping[float, Panel]
    notes: tuple[str, ...]


def compare(
    rows: Sequence[Row], reference: Row | None, metric: str = ACCURACY, *, best: bool = False
) -> list[Comparison]:
    """Return each row's difference to a reference, over the trials of both and on the same test images.

    Parameters
    ----------
    rows : of the same trials
    reference : one of them or another; None: nothing is compared
    metric : as for `Row.estimate`
    best : whether the reference is one of the rows that was chosen for being the best of them
    """
    common = common_trials(rows[0], reference) if reference and rows else []
    if reference is None or not common:
        return [UNKNOWN] * len(rows)
    everyone = [*rows, *([] if any(row is reference for row in rows) else [reference])]
    place = next(index for index, row in enumerate(everyone) if row is reference)
    everyone = [row.of_trials(common) for row in everyone]
    reference = everyone[place]
    mean = ClassMean.of(reference, metric)
    if mean is None:
        return [UNKNOWN] * len(rows)
    for row in everyone:
        for record, other in zip(row.records, reference.records, strict=True):
            if record.result.data.pixels != other.result.data.pixels:
                raise other_images(record, other)
        if not (np.array_equal(row.test_ids, reference.test_ids) and np.array_equal(row.tested, reference.tested)):
            raise other_images(row.records[0], reference.records[0])
    scores = np.stack([mean.scores(row) for row in everyone])
    clusters = None if reference.lesions is None else reference.lesions[mean.used]
    tested, adjusted = reference.tested[:, mean.used], tukey if best else dunnett
    found = compared(scores, place, mean.labels, adjusted, mean.weights, clusters, tested, reference.inflation)
    return found[: len(rows)]


def comparisons(panel: Panel) -> tuple[list[Comparison], list[Comparison]]:
    """Return the rows' comparisons with the best of them and with the baseline."""
    return compare(panel.rows, panel.rows[0], best=True), compare(panel.rows, panel.setting.baseline)


def common_trials(row: Row, reference: Row) -> list[int]:
    """Return the numbers of the trials that both have."""
    return sorted(set(row.trials) & set(reference.trials))


def settings_of(records: Iterable[Record]) -> list[Setting]:
    """Return the settings among records, in order of data, ratio and split.

    A row is a method with its hyper-parameters and, of a plug-in, its text. Where two would have the same name (a
    plug-in that was edited, defaults that changed), a digest of them is added, at all ratios of the data and protocol.
    A trial that lies in several folders counts once.
    """
    found: dict[tuple[Any, ...], dict[str, dict[int, Record]]] = {}
    versions: dict[tuple[Any, ...], set[str]] = {}
    copies: dict[tuple[Any, ...], list[str]] = {}
    for record in records:
        version, trial = _version(record.result), record.result.trial
        versions.setdefault(_namesakes(record.result), set()).add(version)
        # Pixels are no part of the key that a plan knows: it is made before the images are decoded.
        # Where each trial draws its own split, each has its own pixels.
        data = record.result.data
        key = (*key_of(record.result), data.pixels if data.varied_from is None else "")
        kept = found.setdefault(key, {}).setdefault(version, {}).setdefault(trial, record)
        if kept is not record:
            copies.setdefault(key, []).append(_copy(kept, record))

    def row(by_trial: Mapping[int, Record]) -> Row:
        own = tuple(by_trial[trial] for trial in sorted(by_trial))
        name = _name(own[0].result)
        if len(versions[_namesakes(own[0].result)]) > 1:
            name += f" [{_version(own[0].result)[:8]}]"
        return Row(name, own)

    settings: list[Setting] = []
    for key in sorted(found):
        rows = tuple(sorted(map(row, found[key].values()), key=lambda row: -comparable(row.accuracy.value)))
        data = rows[0].result.data
        same = [
            earlier for earlier in settings if (earlier.data.dataset, earlier.data.ratio) == (data.dataset, data.ratio)
        ]
        differences = (_differences(rows[0].result, same[0].result),) if same else ()
        settings.append(Setting(rows, differences, (*copies.get(key, ()), *_doubts(rows))))
    return settings


def version_notes(rows: Iterable[Row]) -> list[str]:
    """Return a line on what stands in brackets behind the names of rows; none where nothing does."""
    marked = sorted({_name(row.result) for row in rows if row.name != _name(row.result)})
    if not marked:
        return []
    digest = "the digest of method, hyper-parameters and plug-in text"
    return [f"Several versions of {', '.join(marked)}: in brackets stand the first digits of {digest}."]


def families_of(settings: Sequence[Setting]) -> list[Family]:
    """Return what shares a table of ratios.

    Panels share one if nothing but the ratio differs: data, kind of split, largest class, test images a class, protocol
    and trials are the same. Where a ratio has two splits all the same, the second goes to a table of its own.
    """
    found: dict[tuple[Any, ...], dict[float, Panel]] = {}
    for setting in settings:
        data = setting.data
        tested = setting.rows[0].test_counts[0].tolist()
        shared = (setting.result.protocol_digest, setting.result.deciding_threads)
        key = (data.dataset, data.variant, data.split, *shared, max(data.class_counts), *tested)
        for panel in setting.panels():
            copy = 0
            while data.ratio in found.get((key, panel.trials, copy), {}):
                copy += 1
            found.setdefault((key, panel.trials, copy), {})[data.ratio] = panel
    ordered = sorted(found, key=lambda key: (str(key[0]), -len(key[1]), key[1:]))
    families: list[Family] = []
    firsts: dict[tuple[Any, ...], Panel] = {}
    for key in ordered:
        first = next(iter(found[key].values()))
        near = [other for other, panel in firsts.items() if panel.setting.data.dataset == first.setting.data.dataset]
        notes = []
        if near and near[0][1] != key[1]:
            notes.append(_other_trials(first.trials))
        if near and (near[0][0], near[0][2]) != (key[0], key[2]):
            notes.append(_differences(first.setting.result, firsts[near[0]].setting.result))
        notes += version_notes(row for panel in found[key].values() for row in panel.rows)
        families.append(Family(found[key], tuple(notes)))
        firsts[key] = first
    return families


def doubts_of(panels: Iterable[Panel]) -> list[str]:
    """Return the doubts of the settings of panels that share a table, each once."""
    return list(dict.fromkeys(line for panel in panels for line in panel.setting.doubts))


def made_by(rows: Iterable[Row], what: Callable[[Result], str]) -> str:
    """Return what made the trials of rows, the most frequent first; of each other, whose trials those are.

    Parameters
    ----------
    what : made a result, such as its device
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        for record in row.records:
            found.setdefault(what(record.result), []).append(row.name)
    first, *others = sorted(found, key=lambda name: (-len(found[name]), name))
    parts = [f"{first}: {counted(len(found[first]), 'trial')}"]
    parts += [
        f"{name}: {counted(len(found[name]), 'trial')} of {', '.join(dict.fromkeys(found[name]))}" for name in others
    ]
    return "; ".join(parts)


def _libraries(rows: Sequence[Row]) -> list[str]:
    """Return a line on the libraries of which several versions made the trials of rows; none where there are none."""
    versions = [record.result.versions for row in rows for record in row.records]
    names = dict.fromkeys(name for own in versions for name in own)
    differing = [name for name in names if len({own.get(name) for own in versions}) > 1]
    if not differing:
        return []
    made = made_by(rows, lambda own: ", ".join(f"{name} {own.versions.get(name, 'unknown')}" for name in differing))
    return [f"Several versions of libraries: {made}."]


def _copy(kept: Record, other: Record) -> str:
    """Return one line on a trial that lies in two folders: a record counts once, by what it is."""
    same = kept.result.test == other.result.test
    which = f"trial {kept.result.trial} of {_name(kept.result)} lies in {kept.folder} and in {other.folder}"
    return f"Counted once: {which}{'' if same else ', which gives other numbers'}."


def _doubts(rows: Sequence[Row]) -> list[str]:
    """Return lines on several versions of libraries and code, and on records that do not lie where trials write."""
    made: dict[str, list[str]] = {}
    for row in rows:
        results = [record.result for record in row.records]
        versions = {each for own in results for each in (own.code_version, own.code_version_at_start) if each}
        if len(versions) > 1:
            made.setdefault(", ".join(sorted(versions)), []).append(row.name)
    lines = _libraries(rows)
    lines += [f"Several versions of the code made {', '.join(names)}: {versions}." for versions, names in made.items()]
    misplaced = [record for row in rows for record in row.records if not _lies_right(record)]
    if misplaced:
        first, count = misplaced[0], len(misplaced)
        held = f"{first.folder} holds trial {first.result.trial} of {_name(first.result)}"
        lines.append(f"Not where trials are written, perhaps renamed or moved: {count} record(s); {held}.")
    return lines


def _lies_right(record: Record) -> bool:
    """Return whether the names of a record's folders are those of its content."""
    data, (*_, setting, row, trial) = record.result.data, record.folder.absolute().parts
    method = re.fullmatch(r"(.+)-[0-9a-f]{8}", row)
    names = (setting, method and method[1], trial)
    return names == (
        f"{data.dataset}-{data.split}-r{data.ratio:g}",
        record.result.method,
        f"trial{record.result.trial}",
    )


def _other_trials(trials: Sequence[int]) -> str:
    return f"Trials {', '.join(map(str, trials))}: rows of other trials are not mixed in."


def _differences(result: Result, other: Result) -> str:
    """Return one line that says in what two results differ that must not be mixed."""
    differing = [
        f"{name} {mine or 'none'}, not {others or 'none'}"
        for name, mine, others in (
            ("variant", result.data.variant, other.data.variant),
            ("split", result.data.split, other.data.split),
        )
        if mine != others
    ]
    if result.deciding_threads != other.deciding_threads:
        differing.append(f"{result.deciding_threads} CPU threads a trial, not {other.deciding_threads}")
    protocol, another = current_fields(result.protocol), current_fields(other.protocol)
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


def _namesakes(result: Result) -> tuple[Any, ...]:
    """Return where no two rows may have one name: all ratios of the same data and protocol."""
    data = result.data
    return (_name(result), data.dataset, data.variant, data.split, result.protocol_digest)


def _version(result: Result) -> str:
    """Return a digest of what a row is: method, all hyper-parameters, text of a plug-in."""
    return json_digest([result.method, result.hyperparameters, result.plugin])


def _name(result: Result) -> str:
    changed = ", ".join(f"{name}={value}" for name, value in result.changed.items())
    return f"{result.method} ({changed})" if changed else result.method
