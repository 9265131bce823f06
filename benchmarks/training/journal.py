"""The state of a trial on disk, and what a method sees of it between stages.

Resume is replay: after each stage its result and weights are committed; after a crash the method's generator
starts again, finished stages return their stored result, and decisions between stages come from the memo.

Every entry carries a digest of its content and the trial that it is of, and names the weights that belong to it by
their SHA-256: what is missing, altered or of another trial is an error, and never replaced by initial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltbench.benchmarks.analysis.record_files.sealed import REMEDY, read_sealed, write_sealed
from ltbench.benchmarks.training.stages.snapshots import Snapshot
from ltbench.errors import UserError
from ltbench.files import (
    append_line,
    content_digest,
    file_hash,
    plain,
    read_tensors,
    require_regular,
    tensors_digest,
    write_lines,
    write_tensors,
)
from ltbench.methods._pretraining import INITIAL
from ltbench.methods.stages import EpochReport, Stage, StageResult


@dataclass
class Weights:
    """The state of the method after an epoch: in memory, in a file of the journal once it is stored, or both.

    Attributes
    ----------
    name : what the file's name begins with
    state : None after a restart
    file : its name; empty until the state is stored
    """

    name: str = ""
    state: Snapshot | None = None
    file: str = ""


@dataclass(frozen=True)
class Selection:
    """The epoch that would be reported if training ended now.

    Attributes
    ----------
    score : of the selection metric
    stage, epoch : where it was reached
    weights : of that epoch
    """

    score: float
    stage: str
    epoch: int
    weights: Weights


@dataclass(frozen=True)
class Checkpoint:
    """A stage in progress, as of its last finished epoch.

    Attributes
    ----------
    reports : of the stage so far
    selection : of the trial so far
    kept : the stage's best weights, where the stage keeps them
    tensors : states of method, stage modules and optimizer
    """

    reports: Sequence[EpochReport]
    selection: Selection | None
    kept: Weights | None
    tensors: Snapshot


class Journal:
    """Everything that a trial needs to go on after it was killed: one folder of small files.

    Parameters
    ----------
    trial : folder of the trial; the journal is its sub-folder `journal`
    owner : digest of what the trial is; entries of another one are refused
    permit : called before anything is written; raises where the trial is another process's by now
    """

    def __init__(self, trial: Path, owner: str = "", permit: Callable[[], None] = lambda: None) -> None:
        self.folder, self._owner, self._permit = trial / "journal", owner, permit
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics = trial / "metrics.jsonl"
        self._found: dict[str, Any] | None = None  # the checkpoint that was there, until it is asked for
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
        stored = self._read(path)
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
        lasting: bool = False,
    ) -> None:
        """Store the end of a stage; the JSON file, written last, is what makes it ended.

        `lasting`: keep its weights also when later stages have ended, for what a method reads at its beginning.
        """
        self._permit()
        weights = self._weights_path(position)
        stored = {
            "weights": write_tensors(weights, state),
            "memos": sorted(self.memos()),
            "name": stage.name,
            "indices": indices_digest(stage),
            "stopped": result.stopped,
            "cached": cached,
            "lasting": lasting,
            "rates": list(rates),
            "stopping": stopping,
            "selection": self._stored(selection),
            "reports": [asdict(report) for report in result.reports],
        }
        self._write(self._stage_path(position), stored)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)
        self._found = None
        if position and not _lasts(self._read(self._stage_path(position - 1))):
            self._weights_path(position - 1).unlink(missing_ok=True)
        self._drop_weights(selection, None)

    def weights_after(self, position: int, device: torch.device) -> Mapping[str, Any] | None:
        """Return the method's state after the last finished stage, or one that lasts; None after any other.

        Raises
        ------
        UserError : the weights are missing, or not those that the stage ended with
        """
        stored = self._read(self._stage_path(position))
        if self._stage_path(position + 1).exists() and not _lasts(stored):
            return None
        return self._verified(self._weights_path(position), stored["weights"], device)

    def store(self, weights: Weights) -> str:
        """Write weights, unless they are stored; return the file's name, which ends with the SHA-256 of the state."""
        self._permit()
        if not weights.file and weights.state is not None:
            state = weights.state.on_host()
            file = f"{weights.name}-{tensors_digest(state)}.pt"
            write_tensors(self.folder / file, state)
            weights.file = file
        return weights.file

    def load(self, weights: Weights, device: torch.device) -> Mapping[str, Any]:
        """Return the state of weights, from memory where it is there.

        Raises
        ------
        UserError : missing, corrupt, or other weights
        """
        if weights.state is not None:
            return weights.state.values
        path = self.folder / weights.file
        state = read_tensors(path, device)
        if not path.stem.endswith(tensors_digest(state)):
            raise _other_weights(path)
        return state

    def log(self, report: EpochReport) -> None:
        """Append an epoch to `metrics.jsonl`; one that no checkpoint holds is taken out again by `rewrite_metrics`."""
        self._permit()
        append_line(self.metrics, asdict(report))

    def save_checkpoint(self, position: int, checkpoint: Checkpoint) -> None:
        """Store a stage in progress and the weights that it names; then drop weights that it no longer names."""
        self._permit()
        self._found = None
        tensors = checkpoint.tensors.on_host()
        header = {
            "trial": self._owner,
            "digest": tensors_digest(tensors),
            "position": position,
            "reports": [plain(asdict(report)) for report in checkpoint.reports],
            "selection": self._stored(checkpoint.selection),
            "kept": self.store(checkpoint.kept) if checkpoint.kept else None,
        }
        write_tensors(self.folder / "checkpoint.pt", {"header": header, "tensors": tensors})
        self._drop_weights(checkpoint.selection, checkpoint.kept)

    def checkpoint(self, position: int, device: torch.device) -> Checkpoint | None:
        """Return the stored checkpoint of the stage at `position`, None if there is none."""
        stored = self._checkpoint()
        if stored is None or stored["header"]["position"] != position:
            return None
        self._found = None
        header = stored["header"]
        reports = [report_from(row) for row in header["reports"]]
        kept = Weights(file=header["kept"]) if header["kept"] else None
        return Checkpoint(reports, _selection_from(header["selection"]), kept, Snapshot(stored["tensors"], device))

    def require_whole(self) -> None:
        """Check that nothing is missing between the first entry and the last.

        Raises
        ------
        UserError : a stage or a decision that a later stage was based on is missing
        """
        paths = sorted(self.folder.glob("stage*.json"))
        for position in range(len(paths)):
            if not self._stage_path(position).exists():
                raise UserError(f"{self._stage_path(position)} is missing, and later stages are there; {REMEDY}")
        if paths:
            for name in self._read(paths[-1])["memos"]:
                if not self._memo_path(name).exists():
                    raise UserError(f"{self._memo_path(name)} is missing, and later stages are there; {REMEDY}")
        stored = self._checkpoint()
        if stored is not None and stored["header"]["position"] > len(paths):
            missing = self._stage_path(len(paths))
            raise UserError(f"{missing} is missing, and a checkpoint of a later stage is there; {REMEDY}")

    def rewrite_metrics(self) -> None:
        """Make `metrics.jsonl` hold exactly the epochs that the journal holds."""
        rows = [row for path in sorted(self.folder.glob("stage*.json")) for row in self._read(path)["reports"]]
        stored = self._checkpoint()
        if stored is not None:
            header = stored["header"]
            if not self._stage_path(header["position"]).exists():
                rows.extend(header["reports"])
        write_lines(self.metrics, rows)

    def memo(
        self, name: str, compute: Callable[[], Any], cost: Callable[[], Mapping[str, float]], *, story: bool
    ) -> Any:
        """Return the stored value of this name, or compute and store it with what it cost."""
        path = self._memo_path(name)
        if not path.exists():
            self._write(path, {"name": name, "value": compute(), "cost": cost(), "story": story})
        return self._read(path)["value"]

    def memos(self) -> dict[str, Mapping[str, Any]]:
        """Return all stored values with their costs, by name, in the order in which they were stored."""
        paths = sorted(self.folder.glob("memo-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return {path.stem.removeprefix("memo-"): self._read(path) for path in paths}

    def stages(self) -> list[Mapping[str, Any]]:
        """Return the stored ends of all stages."""
        return [self._read(path) for path in sorted(self.folder.glob("stage*.json"))]

    def drop_all_weights(self) -> None:
        """Delete what only a trial in progress needs."""
        for path in self.folder.glob("*.pt"):
            path.unlink()

    def _stored(self, selection: Selection | None) -> dict[str, Any] | None:
        """Return a selection as JSON keeps it, its weights in a file."""
        if selection is None:
            return None
        scored = {"score": selection.score, "stage": selection.stage, "epoch": selection.epoch}
        return {**scored, "weights": self.store(selection.weights)}

    def _drop_weights(self, selection: Selection | None, kept: Weights | None) -> None:
        named = {selection.weights.file if selection else None, kept.file if kept else None}
        for pattern in ("selected-*.pt", "kept-*.pt"):
            for path in self.folder.glob(pattern):
                if path.name not in named:
                    path.unlink()

    def _write(self, path: Path, entry: Mapping[str, Any]) -> None:
        self._permit()
        write_sealed(path, {"trial": self._owner, "entry": path.stem, **entry})

    def _read(self, path: Path) -> dict[str, Any]:
        stored = read_sealed(path)
        if (stored.get("trial"), stored.get("entry")) != (self._owner, path.stem):
            raise UserError(f"{path} belongs to another trial or stage; {REMEDY}")
        return stored

    def _checkpoint(self) -> dict[str, Any] | None:
        """Return what the checkpoint holds, in the host's memory; it is read once."""
        path = self.folder / "checkpoint.pt"
        if self._found is not None or not path.exists():
            return self._found
        stored = read_tensors(path)
        header = stored.get("header") if isinstance(stored, dict) else None
        if not isinstance(header, dict) or header.get("digest") != tensors_digest(stored.get("tensors")):
            raise _other_weights(path)
        if header.get("trial") != self._owner:
            raise UserError(f"{path} belongs to another trial; {REMEDY}")
        self._found = stored
        return stored

    def _verified(self, path: Path, digest: str, device: torch.device) -> Mapping[str, Any]:
        if path.exists() and file_hash(require_regular(path)) != digest:
            raise _other_weights(path)
        return read_tensors(path, device)

    def _memo_path(self, name: str) -> Path:
        return self.folder / f"memo-{name}.json"

    def _stage_path(self, position: int) -> Path:
        return self.folder / f"stage{position:03d}.json"

    def _weights_path(self, position: int) -> Path:
        return self.folder / f"weights{position:03d}.pt"


def _lasts(stored: Mapping[str, Any]) -> bool:
    """Return whether the weights of a stage are kept to the end; journals of earlier versions do not say it."""
    return stored.get("lasting", stored["name"] == INITIAL)


def report_from(row: Mapping[str, Any]) -> EpochReport:
    """Return the report of a stored row; None among the values of classes stands for NaN."""
    values = dict(row)
    for name in ("val_recall", "val_precision", "val_f1"):
        if values[name] is not None:
            values[name] = tuple(float("nan") if value is None else value for value in values[name])
    return EpochReport(**values)


def _selection_from(stored: Mapping[str, Any] | None) -> Selection | None:
    return Selection(**{**stored, "weights": Weights(file=stored["weights"])}) if stored else None


def _other_weights(path: Path) -> UserError:
    return UserError(f"{path} holds other weights than its trial has stored; {REMEDY}")


def indices_digest(stage: Stage) -> str | None:
    """Return the SHA-256 of a stage's images, None for all."""
    if stage.indices is None:
        return None
    return content_digest(np.ascontiguousarray(stage.indices, dtype=np.int64).tobytes())
