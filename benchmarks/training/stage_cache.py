"""Preparatory stages computed once and shared: one self-supervised encoder per trial serves every method.

An entry is found by everything that its content depends on: the recipe, the settings of the stage, the protocol,
the split, the incoming weights, the trial's seed. Its cost is charged in full to every method that uses it.
It is a JSON file, sealed, with the SHA-256 of the file of weights beside it.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ltbench
from ltbench.benchmarks.analysis.record_files.sealed import read_sealed, write_sealed
from ltbench.benchmarks.training.journal import report_from
from ltbench.errors import UserError
from ltbench.files import file_hash, json_digest, plain, read_tensors, write_tensors
from ltbench.locks import Claim, locked
from ltbench.methods.stages import Stage, StageResult

_VERSION = 2  # raise when training itself changes: results of older code are then computed again


class CacheEntry:
    """Place of one shared stage; claimed from look-up to store."""

    def __init__(self, path: Path, stage_name: str, claim: Claim) -> None:
        self._path, self._weights, self._stage_name = path, path.with_suffix(".pt"), stage_name
        self._claim = claim

    def load(self, device: torch.device) -> tuple[dict[str, Tensor], StageResult] | None:
        """Return what the stage produced and how it ended, or None if nobody has run it.

        A damaged, altered or foreign entry counts as none: it is computed again.
        """
        if not self._path.exists():
            return None
        try:
            stored = read_sealed(self._path)
            if stored.get("key") != self._path.stem:
                raise UserError(f"{self._path} is the entry of another stage")
            produced = read_tensors(self._weights, device)
            if stored["weights"] != file_hash(self._weights):
                raise UserError(f"{self._weights} holds other weights than were stored")
        except UserError as error:
            print(f"shared stage {self._stage_name} is computed again: {error}", file=sys.stderr)
            return None
        reports = tuple(report_from({**row, "stage": self._stage_name}) for row in stored["reports"])
        return produced, StageResult(self._stage_name, stored["stopped"], reports)

    def save(self, produced: Mapping[str, Tensor], result: StageResult) -> None:
        """Store what the stage produced; the JSON file, written last, is what makes it stored.

        Where another process has taken the claim over, it is left to that one.
        """
        if not self._claim.held:
            return
        weights = write_tensors(self._weights, dict(produced))
        reports = [asdict(report) for report in result.reports]
        entry = {"key": self._path.stem, "weights": weights, "stopped": result.stopped, "reports": reports}
        write_sealed(self._path, entry)


class StageCache:
    """Folder of shared stages.

    Parameters
    ----------
    folder : of all entries
    data_digest : of the split and the stored images
    """

    def __init__(self, folder: Path, data_digest: str) -> None:
        self._folder, self._data_digest = folder, data_digest

    def recipe_digest(self, stage: Stage) -> str:
        """Return the SHA-256 of what a shared stage does, whoever runs it and whatever it is called."""
        settings = ("epochs", "views", "augmentation", "lr", "batch_size", "keep", "validate", "produces")
        return json_digest(plain({"recipe": stage.recipe, **{name: getattr(stage, name) for name in settings}}))

    @contextmanager
    def entry(self, stage: Stage, described: Mapping[str, Any]) -> Iterator[CacheEntry]:
        """Yield the entry of a stage; another process that wants the same one waits until it is there."""
        code = {"version": _VERSION, "ltbench": ltbench.__version__, "torch": torch.__version__}
        code["timm"] = importlib.metadata.version("timm")
        recipe = self.recipe_digest(stage)
        key = json_digest({**described, "code": code, "data": self._data_digest, "recipe": recipe})
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / f"{key}.lock", f"computing the shared stage {stage.name}") as claim:
            yield CacheEntry(self._folder / f"{key}.json", stage.name, claim)
