"""The numbers that the paper prints (Tables 1 to 3, `published.csv`), beside those of a results folder.

The paper gives mean and standard deviation of 5 trials, so both sides get the interval that these allow: the standard
error of the trials' mean with Student's quantile, and the binomial error of the test images, in quadrature. A mean
over K classes of n_c images each counts as K² / Σ 1 / n_c images, a mean of groups likewise (`images` in the file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from ltbench.benchmarks.analysis.cells import lines_of, percent, signed
from ltbench.benchmarks.analysis.metrics import METRICS
from ltbench.benchmarks.analysis.notes import title_of
from ltbench.benchmarks.analysis.record_files.values import current_fields
from ltbench.benchmarks.analysis.records import Result
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import BASELINE, Family, Setting, families_of
from ltbench.datasets.base import NATURAL
from ltbench.files import plain

TRIALS = 5
SETUP = {"isic2019": ("paper", 5000), "isic_archive": ("paper_archive", 9012)}
"""Of the paper's data sets, the preset that is its protocol, and the training images of the largest class."""

_FREE = ("preset", "seed", "precision")  # what of a protocol the paper leaves open

_PRINTED = 0.005 + 1e-9  # half a unit of the last printed digit


def read_published() -> pd.DataFrame:
    """Return the printed numbers: a line each, accuracies in percent.

    Columns: `table` (1 to 3), `label` (the paper's), `method` and `changed` (ours, `name=value` separated by blanks),
    `dataset`, `ratio`, `metric`, `mean`, `sd`, `delta` (printed difference to CE, NaN without), `images`, `source`.
    """
    path = Path(__file__).with_name("published.csv")
    return pd.read_csv(path, dtype={"changed": str, "ratio": str}, keep_default_na=False, na_values={"delta": [""]})


def misprints(published: pd.DataFrame) -> list[str]:
    """Return a line for each printed difference to CE, and each mean of the groups, that its own table contradicts."""
    lines = []
    for (table, ratio), own in published[published["delta"].notna()].groupby(["table", "ratio"]):
        baseline = own.loc[own["method"] == BASELINE, "mean"].item()
        for _, row in own.iterrows():
            if abs(row["mean"] - baseline - row["delta"]) > _PRINTED:
                where = f"Table {table}, {row['label']} at ratio {ratio}"
                lines.append(f"{where}: prints {row['delta']:+.2f}, is {row['mean'] - baseline:+.2f}")
    for (table, label), own in published[published["metric"] != "mean_class_accuracy"].groupby(["table", "label"]):
        values = own.set_index("metric")["mean"]
        mean = values[["head", "medium", "tail"]].mean()
        if abs(values["mean_of_group_means"] - mean) > 2 * _PRINTED:
            lines.append(f"Table {table}, {label}: prints All {values['mean_of_group_means']:.2f}, is {mean:.2f}")
    return lines


def half_width(mean: float, sd: float, trials: int, images: float, confidence: float = 0.95) -> float:
    """Return half the interval of an accuracy of which mean and standard deviation over trials are known.

    Parameters
    ----------
    mean, sd : 0 to 1; sd is NaN for one trial, then the interval is over images alone
    trials, images : at least 1; without images it is NaN
    """
    if not images:
        return float("nan")
    over_images = ndtri((1 + confidence) / 2) * np.sqrt(mean * (1 - mean) / images)
    if trials == 1:
        return float(over_images)
    return float(np.hypot(stdtrit(trials - 1, (1 + confidence) / 2) * sd / np.sqrt(trials), over_images))


def effective_images(labels: np.ndarray, groups: Mapping[str, Sequence[int]], metric: str) -> float:
    """Return how many images a mean over classes or groups is worth: K² / Σ 1 / n_c; 0 where one has none.

    Parameters
    ----------
    labels : int64 [n], of the test images
    groups : class ids of head, medium and tail
    metric : `mean_class_accuracy`, a group, or `mean_of_group_means`
    """
    classes = 1 + max((class_id for members in groups.values() for class_id in members), default=-1)
    counts = np.bincount(labels, minlength=classes).astype(np.float64)

    def worth(sizes: np.ndarray) -> float:
        return len(sizes) ** 2 / float((1 / sizes).sum()) if sizes.all() else 0.0

    worths = {name: worth(counts[list(members)]) for name, members in groups.items() if len(members)}
    if metric == "mean_of_group_means":
        return worth(np.array(list(worths.values())))
    return worths[metric] if metric in worths else worth(counts[counts > 0])


def beside(settings: Sequence[Setting], presets: Mapping[str, Any]) -> list[Table]:
    """Return for each of the paper's tables its numbers beside ours: difference, and whether the intervals overlap.

    A printed row is compared with ours of the same method, hyper-parameters and ratio; where ours are of other data or
    made in another way, the table says so. A table that no row of ours is in is left out.

    Parameters
    ----------
    presets : protocols by name, among them those of `SETUP`
    """
    published = read_published()
    tables = []
    for family in families_of(settings):
        for _, printed in published.groupby("table"):
            pairs = _pairs(printed, family)
            if pairs:
                others = list(
                    dict.fromkeys(text for line, row in pairs for text in departures(line, row.result, presets))
                )
                tables.append(_table(pairs, family.notes, others, misprints(printed)))
    return tables


def as_printed() -> list[Table]:
    """Return the paper's tables as they are printed, for want of rows of ours."""
    return [_printed(printed) for _, printed in read_published().groupby("table")]


def _pairs(printed: pd.DataFrame, family: Family) -> list[tuple[pd.Series, Row]]:
    """Return the printed lines with the rows of ours that they can be compared with."""
    return [
        (line, row)
        for _, line in printed.iterrows()
        for ratio, panel in family.panels.items()
        for row in panel.rows
        if _same(line, row, ratio)
    ]


def _same(line: pd.Series, row: Row, ratio: float) -> bool:
    changed = {name: str(value) for name, value in row.result.changed.items()}
    wanted = dict(text.split("=") for text in line["changed"].split())
    if line["ratio"] == NATURAL:
        same_data = row.result.data.dataset == line["dataset"] and row.result.data.natural
    else:
        same_data = float(line["ratio"]) == ratio and not row.result.data.natural
    return same_data and row.result.method == line["method"] and changed == wanted


def departures(line: pd.Series, result: Result, presets: Mapping[str, Any]) -> list[str]:
    """Return in what the making of our numbers is known to differ from that of a printed one, beside the data set."""
    preset, largest = SETUP[line["dataset"]]
    paper = plain(asdict(presets[preset]))
    ours = paper | current_fields(result.protocol)
    found = [] if result.data.split in ("paper", "published") else [f"split {result.data.split}, not by image"]
    found += [
        f"{name} {ours[name]}, not {paper[name]}" for name in paper if name not in _FREE and ours[name] != paper[name]
    ]
    if result.data.dataset == line["dataset"] and max(result.data.class_counts) != largest:
        found.append(f"largest class {max(result.data.class_counts)}, not {largest}")
    return [*found, *(note for note in result.data.notes if not note.startswith("lesion unknown"))]


def _printed(printed: pd.DataFrame) -> Table:
    """Return one of the paper's tables as it is printed, for want of a row of ours."""
    frame = printed[["table", "label", "method", "ratio", "metric"]].assign(
        published=printed["mean"] / 100, published_sd=printed["sd"] / 100
    )
    compared = printed["delta"].notna().any()
    cells = [
        [
            *(Cell(own["label"]), Cell(own["ratio"]), Cell(METRICS[own["metric"]])),
            Cell(f"{own['mean']:.2f} ± {own['sd']:.2f}"),
            *([Cell("n/a" if np.isnan(own["delta"]) else f"{own['delta']:+.2f}")] if compared else []),
        ]
        for _, own in printed.iterrows()
    ]
    notes = [f"Percent, mean ± sd of {TRIALS} trials, as printed; no finished trial here is of this table."]
    notes += [f"Misprint in the paper: {text}." for text in misprints(printed)]
    headers = ["paper", "ratio", "metric", "published", *(["Δ CE"] if compared else [])]
    subject = f"table {printed['table'].iloc[0]}"
    return Table(str(printed["source"].iloc[0]), frame, headers, cells, notes, "published", subject)


def _table(
    pairs: Sequence[tuple[pd.Series, Row]], reasons: Sequence[str], others: Sequence[str], wrong: Sequence[str]
) -> Table:
    """Return one of the paper's tables beside rows of ours, with what keeps the two from being alike below."""
    frame = pd.DataFrame(_numbers(line, row) for line, row in pairs)
    cells = [
        [
            *(Cell(own["label"]), Cell(own["method"]), Cell(own["ratio"]), Cell(METRICS[own["metric"]])),
            Cell(f"{100 * own['published']:.2f} ± {100 * own['published_sd']:.2f}"),
            *(Cell(percent(own, "ours")), Cell(signed(own["difference"])), _overlap_cell(own["overlap"])),
            Cell(str(own["n"])),
        ]
        for own in lines_of(frame)
    ]
    (line, row), *_ = pairs
    headers = ["paper", "method", "ratio", "metric", "published", "here", "difference", "intervals overlap", "n"]
    notes = [*reasons]
    if row.result.data.dataset != line["dataset"]:
        notes.append(f"Ours are of other data ({row.result.data.dataset}): the differences say nothing of the method.")
    if others:
        notes.append(f"Ours were made in another way: {'; '.join(others)}.")
    notes.append(
        f"Percent, mean ± sd; published: {TRIALS} trials. Both sides have the 95 % interval that mean, sd, trials and "
        "number of test images allow."
    )
    reasons_of = [(line["metric"], own["undefined"]) for line, row in pairs for own in row.measured]
    undefined = dict.fromkeys(f"n/a, {own[name]}: {METRICS[name]}." for name, own in reasons_of if name in own)
    notes += [*undefined, *(f"Misprint in the paper: {text}." for text in wrong)]
    title = f"{line['source']}, beside {title_of(row.result, ratio=False)}"
    return Table(title, frame, headers, cells, notes, "published", f"table {line['table']}")


def _numbers(line: pd.Series, row: Row) -> dict[str, Any]:
    values = row.values(line["metric"])
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    printed, printed_sd = line["mean"] / 100, line["sd"] / 100
    wide = half_width(printed, printed_sd, TRIALS, line["images"])
    own = half_width(
        mean, sd, len(values), effective_images(row.summaries[0].labels, row.result.data.groups, line["metric"])
    )
    return {
        **{"table": line["table"], "label": line["label"], "method": row.name, "ratio": line["ratio"]},
        **{"metric": line["metric"], "published": printed, "published_sd": printed_sd},
        **{"published_low": printed - wide, "published_high": printed + wide},
        **{"ours": mean, "ours_sd": sd, "low": mean - own, "high": mean + own, "n": len(values)},
        **{"difference": mean - printed, "overlap": None if np.isnan(own) else bool(abs(mean - printed) <= wide + own)},
    }


def _overlap_cell(overlap: bool | None) -> Cell:
    return Cell("n/a") if overlap is None else Cell("yes" if overlap else "no", not overlap)
