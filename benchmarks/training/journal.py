"""The state of a trial on disk, and what a method sees of it between stages.

Resume is replay: after each stage its result and weights are committed; after a crash the method's generator
starts again, finished stages return their stored result, and decisions between stages come from the memo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltbench.errors import UserError
from ltbench.files import (
    append_line,
    content_digest,
    plain,
    read_json,
    read_tensors,
    write_json,
    write_lines,
    write_tensors,
)
from ltbench.methods.stages import EpochReport, Stage, StageResult


@dataclass(frozen=True)
class Selection:
    """The epoch that would be reported if training ended now.

    Attributes
    ----------
    score : of the selection metric
    stage, epoch : where it was reached
    weights : file of the method's state, in the journal
    """

    score: float
    stage: str
    epoch: int
    weights: str


@dataclass(frozen=True)
class Checkpoint:
    """A stage in progress, as of its last finished epoch.

    Attributes
    ----------
    reports : of the stage so far
    selection : of the trial so far
    kept : file of the stage's best weights, where the stage keeps them
    tensors : states of method, stage modules and optimizer
    """

    reports: list[EpochReport]
    selection: Selection | None
    kept: str | None
    tensors: Mapping[str, Any]


class Journal:
    """Everything that a trial needs to go on after it was killed: one folder of small files.

    Parameters
    ----------
    trial : folder of the trial; the journal is its sub-folder `journal`
    """

    def __init__(self, trial: Path) -> None:
        self.folder = trial / "journal"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics = trial / "metrics.jsonl"
        for leftover in [*trial.glob("*.tmp"), *self.folder.glob("*.tmp")]:
            leftover.unlink()

    def finished(self, position: int, stage: Stage) -> tuple[StageResult, Selection | None] | None:
        """Return the stored end of a stage, None if it has not ended.

        Raises
        ------
        UserError : the journal's stage at this position is another one
        """
        path = self._stage_path(position)
        if not path.exists():
            return None
        stored = read_json(path)
        if (stored["name"], stored["indices"]) != (stage.name, indices_digest(stage)):
            raise UserError(f"{path} belongs to another stage than {stage.name!r} of now; use --fresh to start over")
        reports = tuple(report_from(row) for row in stored["reports"])
        return StageResult(stage.name, stored["stopped"], reports), _selection_from(stored["selection"])

    def commit(
        self,
        position: int,
        stage: Stage,
        result: StageResult,
        selection: Selection | None,
        state: Mapping[str, Any],
        cached: bool,
        rates: Sequence[float] = (),
        stopping: str = "",
    ) -> None:
        """Store the end of a stage; the JSON file, written last, is what makes it ended."""
        write_tensors(self._weights_path(position), state)
        stored = {
            "name": stage.name,
            "indices": indices_digest(stage),
            "stopped": result.stopped,
            "cached": cached,
            "rates": list(rates),
            "stopping": stopping,
            "selection": asdict(selection) if selection else None,
            "reports": [asdict(report) for report in result.reports],
        }
        write_json(self._stage_path(position), stored)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
        self._weights_path(position - 1).unlink(missing_ok=True)
        self._drop_weights(selection, None)

    def weights_after(self, position: int, device: torch.device) -> Mapping[str, Any] | None:
        """Return the method's state after a finished stage; only the last finished one has it."""
        path = self._weights_path(position)
        return read_tensors(path, device) if path.exists() else None

    def save_state(self, name: str, state: Mapping[str, Any]) -> str:
        """Store a state of the method under a new name; return the file's name."""
        file = f"{name}.pt"
        write_tensors(self.folder / file, state)
        return file

    def load_state(self, file: str, device: torch.device) -> Mapping[str, Any]:
        """Return what `save_state` stored."""
        return read_tensors(self.folder / file, device)

    def save_checkpoint(self, position: int, checkpoint: Checkpoint) -> None:
        """Store a stage in progress and log its newest epoch; then drop weights that it no longer names."""
        header = {
            "position": position,
            "reports": [plain(asdict(report)) for report in checkpoint.reports],
            "selection": asdict(checkpoint.selection) if checkpoint.selection else None,
            "kept": checkpoint.kept,
        }
        write_tensors(self.folder / "checkpoint.pt", {"header": header, "tensors": checkpoint.tensors})
        append_line(self.metrics, asdict(checkpoint.reports[-1]))
        self._drop_weights(checkpoint.selection, checkpoint.kept)

    def checkpoint(self, position: int, device: torch.device) -> Checkpoint | None:
        """Return the stored checkpoint of the stage at `position`, None if there is none."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        stored = read_tensors(path, device)
        header = stored["header"]
        if header["position"] != position:
            return None
        reports = [report_from(row) for row in header["reports"]]
        return Checkpoint(reports, _selection_from(header["selection"]), header["kept"], stored["tensors"])

    def rewrite_metrics(self) -> None:
        """Make `metrics.jsonl` hold exactly the epochs that the journal holds."""
        rows = [row for path in sorted(self.folder.glob("stage*.json")) for row in read_json(path)["reports"]]
        path = self.folder / "checkpoint.pt"
        if path.exists():
            header = read_tensors(path)["header"]
            if not self._stage_path(header["position"]).exists():
                rows.extend(header["reports"])
        write_lines(self.metrics, rows)

    def memo(
        self, name: str, compute: Callable[[], Any], cost: Callable[[], Mapping[str, float]], *, story: bool
    ) -> Any:
        """Return the stored value of this name, or compute and store it with what it cost."""
        path = self.folder / f"memo-{name}.json"
        if not path.exists():
            write_json(path, {"value": compute(), "cost": cost(), "story": story})
        return read_json(path)["value"]

    def memos(self) -> dict[str, Mapping[str, Any]]:
        """Return all stored values with their costs, by name, in the order in which they were stored."""
        paths = sorted(self.folder.glob("memo-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return {path.stem.removeprefix("memo-"): read_json(path) for path in paths}

    def stages(self) -> list[Mapping[str, Any]]:
        """Return the stored ends of all stages."""
        return [read_json(path) for path in sorted(self.folder.glob("stage*.json"))]

    def drop_all_weights(self) -> None:
        """Delete what only a trial in progress needs."""
        for path in self.folder.glob("*.pt"):
            path.unlink()

    def _drop_weights(self, selection: Selection | None, kept: str | None) -> None:
        named = {selection.weights if selection else None, kept}
        for pattern in ("selected-*.pt", "kept-*.pt"):
            for path in self.folder.glob(pattern):
                if path.name not in named:
                    path.unlink()

    def _stage_path(self, position: int) -> Path:
        return self.folder / f"stage{position:03d}.json"

    def _weights_path(self, position: int) -> Path:
        return self.folder / f"weights{position:03d}.pt"


def report_from(row: Mapping[str, Any]) -> EpochReport:
    """Return the report of a stored row; None among the values of classes stands for NaN."""
    values = dict(row)
    for name in ("val_recall", "val_precision", "val_f1"):
        if values[name] is not None:
            values[name] = tuple(float("nan") if value is None else value for value in values[name])
    return EpochReport(**values)


def _selection_from(stored: Mapping[str, Any] | None) -> Selection | None:
    return Selection(**stored) if stored else None


def indices_digest(stage: Stage) -> str | None:
    """Return the SHA-256 of a stage's images, None for all."""
    if stage.indices is None:
        return None
    return content_digest(np.ascontiguousarray(stage.indices, dtype=np.int64).tobytes())
