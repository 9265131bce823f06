"""The table of ranks: where a method stands on average over settings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ltbench.benchmarks.analysis.cells import same
from ltbench.benchmarks.analysis.metrics import METRICS
from ltbench.benchmarks.analysis.notes import title_of
from ltbench.benchmarks.analysis.rendering import Cell, Table
from ltbench.benchmarks.analysis.rows import ACCURACY, comparable
from ltbench.benchmarks.analysis.standings import Panel, Setting, doubts_of, version_notes


def ranks(settings: Sequence[Setting]) -> list[Table]:
    """Return the average rank of rows over all settings in which they all are, those of most settings first.

    Rows of other trials are not ranked with each other. For each choice of settings that a row is in there is a table
    of all rows that are in these, unless it would be one row. Single settings have one only where no two settings share
    two rows.
    """
    panels = [panel for setting in settings for panel in setting.panels()]
    places: dict[str, set[int]] = {}
    for number, panel in enumerate(panels):
        for row in panel.rows:
            places.setdefault(row.name, set()).add(number)
    choices = sorted({tuple(sorted(own)) for own in places.values()}, key=lambda chosen: (-len(chosen), chosen))
    ranked = {chosen: [name for name, own in places.items() if own.issuperset(chosen)] for chosen in choices}
    ranked = {chosen: names for chosen, names in ranked.items() if len(names) > 1}
    several = {chosen: names for chosen, names in ranked.items() if len(chosen) > 1}
    return [
        _ranks([panels[number] for number in chosen], names, [name for name in places if name not in names])
        for chosen, names in (several or ranked).items()
    ]


def _ranks(panels: Sequence[Panel], names: Sequence[str], left_out: Sequence[str]) -> Table:
    frame = pd.concat([_ranks_in(panel, names) for panel in panels], ignore_index=True)
    by_method = frame.groupby("method", sort=False)["rank"]
    frame["mean_rank"], frame["settings"] = by_method.transform("mean"), len(panels)
    means = by_method.mean().sort_values(kind="stable")
    cells = [
        [
            Cell(str(method)),
            Cell(f"{mean:.2f}", same(mean, means.min())),
            *(Cell(f"{rank:g}") for rank in frame.loc[frame["method"] == method, "rank"]),
            Cell(str(len(panels))),
        ]
        for method, mean in means.items()
    ]
    columns = [
        f"{place}: {panel.setting.data.dataset} r{panel.setting.data.ratio:g}" for place, panel in enumerate(panels, 1)
    ]
    about = (
        f"Ranks by {METRICS[ACCURACY]}, mean over trials, 1 is best; equal rows share the mean of their ranks. Ranked "
        "are the rows that all of these settings have, each with the same trials. A rank does not say by how much "
        "one row is better, nor whether that is more than chance, and settings that share images are not independent."
    )
    listed = [
        f"{place}: {title_of(panel.setting.result)}; trials {', '.join(map(str, panel.trials))}."
        for place, panel in enumerate(panels, 1)
    ]
    others = [f"Not ranked, as a setting lacks them or has other trials of them: {', '.join(left_out)}."]
    title = f"Average rank of {len(names)} methods over {len(panels)} setting{'s' * (len(panels) > 1)}"
    versions = version_notes(row for panel in panels for row in panel.rows)
    notes = [*doubts_of(panels), about, *listed, *(others if left_out else []), *versions]
    return Table(title, frame, ["method", "average rank", *columns, "settings"], cells, notes)


def _ranks_in(panel: Panel, names: Sequence[str]) -> pd.DataFrame:
    """Return the ranks of some rows of a panel, one line a row, and what setting they are of."""
    data, result = panel.setting.data, panel.setting.result
    by_name = {row.name: row for row in panel.rows}
    accuracies = [by_name[name].accuracy.value for name in names]
    return pd.DataFrame(
        {
            **{"method": names, "n": len(panel.trials), "dataset": data.dataset, "split": data.split},
            **{"ratio": data.ratio, "protocol": result.protocol_digest[:8], "threads": result.deciding_threads},
            **{ACCURACY: accuracies, "rank": pd.Series(comparable(accuracies)).rank(ascending=False).to_numpy()},
        }
    )
