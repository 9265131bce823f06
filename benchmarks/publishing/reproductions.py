"""Trials of a board that were trained again, and whether they agree."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ltbench.benchmarks.analysis.records import Record, Result
from ltbench.benchmarks.publishing.board import REPRODUCED, Board, read_as
from ltbench.benchmarks.publishing.record_checks import check_numbers, require_known_code
from ltbench.errors import UserError, in_one_line
from ltbench.files import file_hash, require_regular, write_bytes

_FEWEST = 3  # trials that say by how much two of them differ
_ARCHITECTURES = {"x86_64", "amd64", "arm64", "aarch64"}  # what records of before called a CPU, whatever its model
_IDENTITY = ("method", "hyperparameters", "plugin", "trial")


@dataclass(frozen=True)
class Reproduction:
    """One trial that was trained again.

    Attributes
    ----------
    row : folder of the row, from that of the records
    trial : its number
    when : date, ISO 8601
    device, code_version : where, and by what
    largest_difference : of any test logit
    accuracy_difference : in mean per-class accuracy on test images, the new one minus the published one
    exact : whether no other bits are allowed: the same model of CPU, the same libraries
    allowed : what two trials of the row differ by in 95 % of cases; NaN where fewer than three are published. Not
        stored: it is that of the board's trials of now
    """

    row: str
    trial: int
    when: str
    device: str
    code_version: str
    largest_difference: float
    accuracy_difference: float
    exact: bool = False
    allowed: float = field(default=float("nan"), metadata={"stored": False})

    @property
    def agrees(self) -> bool:
        """Whether both are the same to the bit, or within what is allowed."""
        same = self.largest_difference == 0 and self.accuracy_difference == 0
        return bool(same or (not self.exact and abs(self.accuracy_difference) <= self.allowed))

    def line(self) -> str:
        """Return what was found, in one line."""
        which = f"{self.row}, trial {self.trial} on {self.device}"
        if self.largest_difference == 0:
            return f"{which}: the same to the bit"
        apart = f"{100 * self.accuracy_difference:+.2f} points, logits up to {self.largest_difference:.3g} apart"
        if self.exact:
            return f"{which}: DOES NOT AGREE: {apart}; the same CPU and libraries must give the same bits"
        within = f"two trials of this row differ by up to {100 * self.allowed:.2f} points in 95 % of cases"
        if np.isnan(self.allowed):
            within = f"fewer than {_FEWEST} trials of this row do not show by how much trials differ"
        return f"{which}: {'agrees' if self.agrees else 'DOES NOT AGREE'}: {apart}; {within}"


def reproductions(board: Board) -> list[Reproduction]:
    """Return what was trained again, in order.

    Raises
    ------
    UserError : the list is not of its form
    """
    import yaml

    path = board.folder / REPRODUCED
    if not path.exists():
        return []
    try:
        held = yaml.safe_load(require_regular(path).read_text(encoding="utf-8")) or []
        found = read_as(Reproduction, held)
        for each in found:
            datetime.date.fromisoformat(each.when)
        if any("allowed" in each for each in held):
            raise ValueError("allowed is not stored")
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:  # of pydantic and Unicode, too
        raise UserError(f"{path} is no list of reproductions ({in_one_line(str(error))})") from error
    return [replace(each, allowed=_allowed(board, each.row)) for each in found]


def write_reproductions(board: Board, every: Sequence[Reproduction]) -> None:
    """Write the list of what was trained again."""
    import yaml

    kept = [each.name for each in fields(Reproduction) if each.metadata.get("stored", True)]
    stored = [{name: asdict(each)[name] for name in kept} for each in every]
    text = yaml.safe_dump(stored, sort_keys=False, allow_unicode=True)
    write_bytes(board.folder / REPRODUCED, text.encode())


def request_of(board: Board, record: Record, **others: Any) -> dict[str, Any]:
    """Return the fields of the request that trains a trial of a board again.

    Parameters
    ----------
    others : fields that are of this machine: data, results folder, device
    """
    result, setting = record.result, board.setting_of(record)
    plugins = [] if result.plugin is None else [str(board.plugin_path(result.plugin))]
    chosen = {"methods": [result.method], "hyperparameters": dict(result.hyperparameters), "trials": [result.trial]}
    return {**setting.request, **chosen, "plugins": plugins, "threads": result.threads, **others}


def trained_elsewhere(board: Board, record: Record, results: Path) -> Record:
    """Return the trial of a results folder that is a published one, trained again.

    Raises
    ------
    UserError : it is not there, is the published one itself, restored or copied, or does not hold
    """
    folder = results / record.folder.relative_to(board.records_folder)
    if not (folder / "result.json").exists():
        raise UserError(f"{folder} is no finished trial; --trained needs the results folder of the run that trained it")
    if file_hash(folder / "result.json") == file_hash(record.folder / "result.json"):
        raise UserError(f"{folder} is the published trial itself; train it again in an empty results folder")
    again = Record.read(folder)
    require_known_code(again)
    check_numbers(again, again.manifest())
    return again


def compared(board: Board, published: Record, again: Record) -> Reproduction:
    """Return how far a trial that was trained again is from the published one.

    Raises
    ------
    UserError : it is not of the same split, pixels or protocol
    """
    setting = board.setting_of(published)
    differing = setting.differences(again)
    differing += [name for name in _IDENTITY if getattr(published.result, name) != getattr(again.result, name)]
    if differing:
        raise UserError(f"{again.folder} is no reproduction of {published.folder}: other {', '.join(differing)}")
    row = published.folder.parent.relative_to(board.records_folder).as_posix()
    first, second = published.predictions(), again.predictions()
    apart = float(np.abs(second["test_logits"].astype(np.float64) - first["test_logits"]).max())
    difference = again.result.test["mean_class_accuracy"] - published.result.test["mean_class_accuracy"]
    same = all(np.array_equal(first[name], second[name]) for name in first)
    return Reproduction(
        row=row,
        trial=published.result.trial,
        when=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        device=again.result.device,
        code_version=again.result.code_version,
        largest_difference=0.0 if same else max(apart, np.finfo(np.float64).tiny),
        accuracy_difference=difference,
        exact=_same_machine(published.result, again.result),
        allowed=_allowed(board, row),
    )


def _allowed(board: Board, row: str) -> float:
    """Return by how much two trials of a row differ in 95 % of cases, in mean per-class accuracy on test images."""
    folder = board.records_folder / row
    accuracies = [each.result.test["mean_class_accuracy"] for each in board.records if each.folder.parent == folder]
    count = len(accuracies)
    if count < _FEWEST:
        return float("nan")
    return float(np.sqrt(2) * np.std(accuracies, ddof=1) * stdtrit(count - 1, 0.975))


def _same_machine(first: Result, second: Result) -> bool:
    """Return whether two results are of the same model of CPU, threads and libraries, where bits are to be the same."""
    names = ("device_type", "device", "threads", "versions")
    known = first.device_type == "cpu" and first.device.lower() not in _ARCHITECTURES
    return known and all(getattr(first, name) == getattr(second, name) for name in names)


def record_of(board: Board, method: str, trial: int, setting: str | None) -> Record:
    """Return the published trial of a method.

    Parameters
    ----------
    method : name of the row, as tables show it
    setting : by name; None: the main one

    Raises
    ------
    UserError : there is no such trial, or no such setting
    """
    from ltbench.benchmarks.analysis.standings import settings_of
    from ltbench.registry import unknown

    names = [each.name for each in board.settings]
    if setting is not None and setting not in names:
        raise unknown("setting", setting, names)
    chosen = board.settings[names.index(setting) if setting else 0]
    rows = {row.name: row for each in settings_of(chosen.among(board.records)) for row in each.rows}
    if method not in rows:
        raise unknown(f"row of board {board.name}", method, list(rows))
    found = {record.result.trial: record for record in rows[method].records}
    if trial not in found:
        raise UserError(f"{method} has the trials {', '.join(map(str, found))} on board {board.name}, not {trial}")
    return found[trial]
