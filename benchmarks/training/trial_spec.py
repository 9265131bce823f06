"""One trial as a value: everything that it depends on, and what its record says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltbench.benchmarks.analysis.record_files.description import DataDescription
from ltbench.benchmarks.analysis.records import SCHEMA
from ltbench.benchmarks.training.protocol import Protocol


@dataclass(frozen=True)
class TrialSpec:
    """Everything that a trial depends on.

    Attributes
    ----------
    data : what records say of the data, `plan.described(dataset, pixels)`
    method, hyperparameters : name and all values
    changed : the hyper-parameters that differ from the preset's defaults
    plugin : SHA-256 of the method's file where it is a plug-in
    protocol : with precision resolved
    trial : number, from 0
    folder : of the trial
    split_file, split_digest : the manifest of its split, and the SHA-256 of that
    store : folder of the image store
    cache : folder of shared stages
    device : name of the device
    threads : CPU threads
    checkpoint_seconds : the least time between two checkpoints within a stage
    request : fields of the request for this trial alone, with which it can be run again
    plugins : files to import before the method is known
    wandb, wandb_artifacts : mode of the W&B mirror, and whether it gets predictions and pictures
    """

    data: DataDescription
    method: str
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]
    plugin: str | None
    protocol: Protocol
    trial: int
    folder: Path
    split_file: Path
    split_digest: str
    store: Path
    cache: Path
    device: str
    threads: int
    checkpoint_seconds: float
    request: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[Path, ...] = ()
    wandb: str = "disabled"
    wandb_artifacts: bool = False

    @property
    def label(self) -> str:
        """Name of the trial in messages."""
        return f"{self.method} r{self.data.ratio:g} trial {self.trial}"

    @property
    def seed(self) -> int:
        """Of all its random streams."""
        return self.protocol.seed + self.trial

    def config(self) -> dict[str, Any]:
        """Return what `config.json` keeps: all that the numbers depend on but the machine."""
        return {
            "schema": SCHEMA,
            **self.data.to_json(),
            "method": self.method,
            "hyperparameters": dict(self.hyperparameters),
            "changed": dict(self.changed),
            "plugin": self.plugin,
            "trial": self.trial,
            "seed": self.seed,
            "protocol": self.protocol.as_recorded(),
            "protocol_digest": self.protocol.digest(),
            "split_digest": self.split_digest,
        }
