"""Training curves: accuracy and losses of a method over the epochs of all its stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.plots.style import WIDTH, drawing, new_figure, of_trials, series_style
from ltbench.errors import UserError
from ltbench.files import require_regular

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ltbench.benchmarks.analysis.records import Record
    from ltbench.benchmarks.analysis.rows import Row

_LABEL_GAP = 0.035
"""Share of the axis below which the names of two stages would overlap."""


@dataclass(frozen=True, eq=False)
class Curves:
    """The epochs of one trial in the order in which they ran.

    Attributes
    ----------
    stages : name of each epoch's stage
    recall : float [epochs, K], accuracy of each class on validation images, NaN for a class without any and where a
        stage does not validate
    val_loss, train_loss : float [epochs]: cross-entropy on validation images (nats), NaN where a stage does not
        validate; the stage's own training loss, NaN for an evaluation without training
    selected : position of the reported epoch, None where the record does not say
    """

    stages: tuple[str, ...]
    recall: np.ndarray
    val_loss: np.ndarray
    train_loss: np.ndarray
    selected: int | None

    @property
    def accuracy(self) -> np.ndarray:
        """Validation mean per-class accuracy: float [epochs], NaN where a stage does not validate."""
        known = ~np.isnan(self.recall)
        total, count = np.where(known, self.recall, 0).sum(axis=1), known.sum(axis=1)
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def read_curves(record: Record) -> Curves:
    """Return a trial's epochs from its `metrics.jsonl`.

    Raises
    ------
    UserError : missing, empty, corrupt or altered
    """
    name, num_classes, selection = "metrics.jsonl", len(record.result.data.class_names), record.result.selection
    # Records of before the log was sealed hold no digest of it.
    path = record.verified(name) if name in record.result.files else require_regular(record.folder / name)
    try:
        rows = [json.loads(line) for line in require_regular(path).read_text(encoding="utf-8").splitlines()]
        if not rows:
            raise ValueError("no epoch")
        places = [(row["stage"], row["epoch"]) for row in rows]
        recall = [row["val_recall"] or [np.nan] * num_classes for row in rows]
        losses = [(row["val_loss"], row["terms"].get("loss")) for row in rows]
        reported = (selection.stage, selection.epoch)
        return Curves(
            stages=tuple(stage for stage, _ in places),
            recall=np.array(recall, dtype=np.float64).reshape(-1, num_classes),
            val_loss=np.array([first for first, _ in losses], dtype=np.float64),
            train_loss=np.array([second for _, second in losses], dtype=np.float64),
            selected=places.index(reported) if reported in places else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not readable ({error})") from error


@drawing
def training_curves(row: Row, reference: Row | None = None) -> Figure:
    """Draw validation accuracy and losses of a row over the epochs of all stages.

    A line is the mean of the trials that got that far, the shade their range, a star a trial's reported epoch; stages
    are named at the top, from the mean epoch at which they begin. Training losses of stages are of different objectives
    in general: each stage has a line of its own, the mean of the trials that are in it.

    Parameters
    ----------
    reference : another row, whose mean is drawn thin and dotted for comparison

    Raises
    ------
    UserError : `metrics.jsonl` missing or corrupt
    """
    trials = [read_curves(record) for record in row.records]
    lengths = {len(trial.stages) for trial in trials}
    fewer = ", later on of those that got that far" * (len(lengths) > 1)
    figure = new_figure(WIDTH, 2.9, f"{row.name}: {of_trials(row, 'mean and range', pooled=False)}{fewer}")
    left, right = figure.subplots(1, 2, sharex=True)
    if reference:
        mean, *_ = mean_and_range([100 * read_curves(record).accuracy for record in reference.records])
        style = {"color": "black", "linestyle": ":", "linewidth": 1, "zorder": 3}
        label = f"{reference.name}, validation ({of_trials(reference, 'mean', pooled=False)})"
        left.plot(range(1, len(mean) + 1), mean, label=label, **style)
    _draw_band(left, [100 * trial.accuracy for trial in trials], 0, "validation")
    _draw_band(right, [trial.val_loss for trial in trials], 0, "_validation")
    for number, losses in enumerate(stage_losses(trials).values()):
        _draw_band(right, losses, 1, "_stage" if number else "training: each stage's own loss")
    _mark_reported(left, trials)
    left.set_ylabel("mean per-class accuracy (%)")
    right.set_ylabel("loss (nats)")
    if right.dataLim.y0 >= 0:  # not of a similarity
        right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("epoch, counted over all stages")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _mark_stages(axes, stage_starts(trials))
    found = (axes.get_legend_handles_labels() for axes in (left, right))
    handles, labels = ([*first, *second] for first, second in zip(*found, strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def mean_and_range(trials: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, lowest and highest over the trials that have the epoch; NaN where none has.

    Parameters
    ----------
    trials : float [epochs of the trial], NaN where undefined

    Returns
    -------
    float [epochs of the longest trial], three times
    """
    padded = np.full((len(trials), max(map(len, trials))), np.nan)
    for row, trial in zip(padded, trials, strict=True):
        row[: len(trial)] = trial
    masked = np.ma.masked_invalid(padded)
    mean, low, high = (part.filled(np.nan) for part in (masked.mean(0), masked.min(0), masked.max(0)))
    return mean, low, high


def stage_starts(trials: Sequence[Curves]) -> dict[str, float]:
    """Return the mean first epoch, from 1, of each stage over the trials that have it."""
    starts: dict[str, list[int]] = {}
    for trial in trials:
        for name in dict.fromkeys(trial.stages):
            starts.setdefault(name, []).append(trial.stages.index(name) + 1)
    return {name: float(np.mean(own)) for name, own in starts.items()}


def stage_losses(trials: Sequence[Curves]) -> dict[str, list[np.ndarray]]:
    """Return the training losses of each stage: float [epochs of the trial], NaN where a trial is in another stage."""
    return {
        name: [np.where(np.array(trial.stages) == name, trial.train_loss, np.nan) for trial in trials]
        for name in stage_starts(trials)
    }


def _draw_band(axes: Axes, trials: Sequence[np.ndarray], number: int, label: str) -> None:
    mean, low, high = mean_and_range(trials)
    epochs, style = range(1, len(mean) + 1), series_style(number)
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
    # Markers, because a stage may have a single epoch.
    axes.plot(epochs, mean, markersize=2, label=label, **style)


def _mark_reported(axes: Axes, trials: Sequence[Curves]) -> None:
    places = [(trial.selected, trial.accuracy[trial.selected]) for trial in trials if trial.selected is not None]
    if places:
        epochs, scores = np.array(places).T
        star: dict[str, Any] = {"markersize": 8, "color": "black", "zorder": 3}
        star |= {"markeredgecolor": "white", "markeredgewidth": 0.5}
        axes.plot(epochs + 1, 100 * scores, "*", label="reported epoch", **star)


def _mark_stages(axes: Axes, starts: Mapping[str, float]) -> None:
    """Draw a line where a stage begins, and its name on top unless it would touch the one before."""
    for place in starts.values():
        axes.axvline(place, color="#999999", linewidth=0.6, zorder=0.5)
    low, high = axes.get_xlim()
    named: dict[float, str] = {}
    for name, place in sorted(starts.items(), key=lambda start: start[1]):
        if place - max(named, default=low - high) > _LABEL_GAP * (high - low):
            named[place] = name
    top = axes.secondary_xaxis("top")
    top.set_xticks(list(named), list(named.values()), rotation=45, ha="left", rotation_mode="anchor", fontsize=6)
    top.tick_params(length=2, pad=1)
