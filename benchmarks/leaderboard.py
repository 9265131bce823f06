"""Leaderboards: tables made from the records of finished trials alone.

    python benchmarks/leaderboard.py --results results --format github

Only trials of one dataset, split, ratio and protocol share a table. Numbers are mean ± standard deviation over the
trials (ddof = 1), in percent except for seconds. The best mean per-class accuracy is bold; ≈ marks methods whose
difference to it has a 95 % bootstrap interval, over trials and test images, that contains 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltbench.benchmarks.command import Parser, guarded

if TYPE_CHECKING:
    import pandas as pd

    from ltbench.benchmarks.records import Record

FORMATS = ("github", "latex", "csv")
_COLUMNS = {
    "mean_class_accuracy": "mean per-class accuracy",
    "top1": "micro top-1",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "mean_of_group_means": "mean of group means",
    "macro_f1": "macro-F1",
    "macro_auroc": "macro AUROC",
    "ece": "ECE",
}


def row_name(record: Record) -> str:
    """Return the name of a row: the method, and the hyper-parameters that differ from its defaults."""
    result = record.result
    changed = ", ".join(f"{name}={value}" for name, value in result["changed"].items())
    return f"{result['method']} ({changed})" if changed else result["method"]


def row_names(records: Sequence[Record]) -> list[str]:
    """Return the name of each record's row.

    A row is a folder: method, hyper-parameters and, of a plug-in, its text. Where two folders would have the same
    name (a plug-in that was edited, defaults that changed), the folder's hash is added.
    """
    folders: dict[str, set[str]] = {}
    for record in records:
        folders.setdefault(row_name(record), set()).add(record.folder.parent.name)
    return [
        name if len(folders[name := row_name(record)]) == 1 else f"{name} [{record.folder.parent.name[-8:]}]"
        for record in records
    ]


def setting_of(result: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two results must share to be compared."""
    keys = ("dataset", "variant", "ratio", "split", "split_digest", "protocol_digest")
    return tuple(result[key] for key in keys)


def title_of(result: dict[str, Any]) -> str:
    """Return the title of a table: data, split, ratio, protocol."""
    protocol = result["protocol"]
    described = f"{result['title']}, ratio {result['ratio']:g}, split {result['split']} ({result['split_digest'][:8]})"
    network = f"{protocol['backbone']} {protocol['image_size']} px, at most {protocol['epochs']} epochs"
    notes = "".join(f"; {note}" for note in result["notes"])
    return f"{described}; protocol {result['protocol_digest'][:8]}: {network}{notes}"


def build_table(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row a method, best first, of records that share a setting.

    For each metric `m` of the test set there are columns `m` (mean), `m_sd` (ddof = 1, NaN for one trial); further
    `method`, `rank`, `n` (trials), `delta` (to `ce`, over the trials of both, NaN without any), `tie` (with the best),
    `train_seconds`, `images_seen`.

    Raises
    ------
    ValueError : records of different settings
    """
    import numpy as np
    import pandas as pd

    if len({setting_of(record.result) for record in records}) != 1:
        raise ValueError("records of different data, splits or protocols do not share a table")
    names = row_names(records)
    trials = pd.DataFrame(
        {
            "method": name,
            "trial": record.result["trial"],
            "train_seconds": record.result["cost"]["train_seconds"],
            "images_seen": record.result["cost"]["images_seen"],
            **{name: _number(record.result["test"][name]) for name in _COLUMNS},
        }
        for name, record in zip(names, records, strict=True)
    )
    grouped = trials.groupby("method", sort=False)
    table = grouped.mean(numeric_only=True)
    table = table.join(grouped.std(ddof=1, numeric_only=True).add_suffix("_sd"))
    table["n"] = grouped.size()
    table = table.sort_values(["mean_class_accuracy"], ascending=False, kind="stable").reset_index()
    table["rank"] = np.arange(1, len(table) + 1)
    scores = trials.pivot_table(index="trial", columns="method", values="mean_class_accuracy")
    reference = scores["ce"] if "ce" in scores else pd.Series(np.nan, index=scores.index)
    table["delta"] = table["method"].map(scores.sub(reference, axis=0).mean())
    table["tie"] = _ties(records, names, table["method"].tolist())
    return table.drop(columns=["trial", "trial_sd"])


def render(table: pd.DataFrame, title: str, style: str) -> str:
    """Return a table of `build_table` as text: `github`, `latex` (booktabs) or `csv` (all numbers, unrounded)."""
    from tabulate import tabulate

    if style == "csv":
        return _csv([table.assign(title=title)])
    bold = ("**{}**", r"\textbf{{{}}}")[style == "latex"]
    plus_minus, tie_mark = (("±", " ≈"), (r"$\pm$", r" $\approx$"))[style == "latex"]
    columns = {name: label for name, label in _COLUMNS.items() if not _redundant(table, name)}
    rows = []
    for _, row in table.iterrows():
        cells = {name: _cell(row, name, plus_minus) for name in columns}
        if row["rank"] == 1:
            cells["mean_class_accuracy"] = bold.format(cells["mean_class_accuracy"])
        elif row["tie"]:
            cells["mean_class_accuracy"] += tie_mark
        delta = "n/a" if row["delta"] != row["delta"] else f"{100 * row['delta']:+.2f}"
        method = _latex(row["method"]) if style == "latex" else row["method"].replace("|", r"\|")
        first, *others = cells.values()
        cost = [f"{row['images_seen']:.0f}", f"{row['train_seconds']:.0f}"]
        rows.append([row["rank"], method, first, delta, *others, row["n"], *cost])
    first, *others = columns.values()
    headers = ["rank", "method", first, "Δ ce", *others, "n", "images seen", "train s"]
    if style == "latex":
        headers[3] = r"$\Delta$ ce"
        body = tabulate(rows, headers, tablefmt="latex_raw", disable_numparse=True)
        rules = iter((r"\toprule", r"\midrule", r"\bottomrule"))
        body = "\n".join(next(rules) if line == r"\hline" else line for line in body.splitlines())
        return f"% {title}\n{body}"
    aligned = ("right", "left", *["right"] * (len(headers) - 2))
    body = tabulate(rows, headers, tablefmt="github", colalign=aligned, disable_numparse=True)
    return f"### {title}\n\n{body}\n\n{_footer(table)}"


def render_all(records: Iterable[Record], style: str) -> str:
    """Return the tables of all settings among the records, largest ratio last."""
    settings: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        settings.setdefault(setting_of(record.result), []).append(record)
    tables = [(build_table(settings[key]), title_of(settings[key][0].result)) for key in sorted(settings)]
    if style == "csv":
        return _csv([table.assign(title=title) for table, title in tables])
    return "\n\n".join(render(table, title, style) for table, title in tables)


def _csv(tables: Sequence[pd.DataFrame]) -> str:
    import pandas as pd

    return pd.concat(tables).to_csv(index=False, lineterminator="\n").rstrip("\n")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _ties(records: Sequence[Record], names: Sequence[str], ranked: Sequence[str]) -> list[bool]:
    """Return for each row whether its difference to the first row can be chance."""
    import numpy as np

    from ltbench.benchmarks.comparison import class_balanced_scores, paired_interval

    scores: dict[str, dict[int, Any]] = {name: {} for name in ranked}
    labels = None
    for row, record in zip(names, records, strict=True):
        arrays = record.predictions()
        labels = arrays["test_labels"]
        scored = class_balanced_scores(labels, arrays["test_logits"])
        scores[row][record.result["trial"]] = scored
    best, ties = scores[ranked[0]], []
    for name in ranked:
        common = sorted(best.keys() & scores[name].keys())
        if name == ranked[0] or not common:
            ties.append(False)
            continue
        first, second = (np.stack([group[trial] for trial in common]) for group in (best, scores[name]))
        low, high = paired_interval(first, second, labels)
        ties.append(low <= 0 <= high)
    return ties


def _redundant(table: pd.DataFrame, name: str) -> bool:
    """Return whether micro top-1 says nothing new: on a balanced test set it is the mean per-class accuracy."""
    return name == "top1" and bool((table["top1"] - table["mean_class_accuracy"]).abs().max() < 1e-9)


def _footer(table: pd.DataFrame) -> str:
    text = "Percent, mean ± sd over n trials (ddof = 1); bold: best; ≈: the difference to the best has a 95 %"
    text += " paired bootstrap interval, over trials and test images, that contains 0."
    if _redundant(table, "top1"):
        text += " Balanced test set: micro top-1 equals mean per-class accuracy."
    return text


def _cell(row: pd.Series, name: str, plus_minus: str) -> str:
    mean, sd = row[name], row[f"{name}_sd"]
    if mean != mean:
        return "n/a"
    return f"{100 * mean:.2f}" if sd != sd else f"{100 * mean:.2f} {plus_minus} {100 * sd:.2f}"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(prog="leaderboard.py", description="Print the leaderboards of a results folder.")
    parsed.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parsed.add_argument("--format", default="github", metavar="NAME", help=f"{', '.join(FORMATS)}; default: github")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the leaderboards; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.records import find_records
    from ltbench.errors import UserError
    from ltbench.registry import unknown

    if options.format not in FORMATS:
        raise unknown("format", options.format, FORMATS)
    records = list(find_records(options.results))
    if not records:
        raise UserError(f"{options.results} holds no finished trial; run benchmarks/run.py first")
    print(render_all(records, options.format))
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose module names are not meant to be top-level ones
    sys.exit(main())
