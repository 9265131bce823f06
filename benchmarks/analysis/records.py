"""Finished trials as they lie in a results folder: `result.json` as typed values, and the saved predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ltbench.benchmarks.analysis.record_files.agreement import change_contradiction, class_contradiction
from ltbench.benchmarks.analysis.record_files.derived import Derived, DerivedFiles
from ltbench.benchmarks.analysis.record_files.description import DataDescription, as_json
from ltbench.benchmarks.analysis.record_files.predictions import PARTS, read_predictions
from ltbench.benchmarks.analysis.record_files.sealed import DIGEST, REMEDY, sealed, unsealed
from ltbench.benchmarks.analysis.record_files.values import Amount, Count, ProtocolValues, Scores, Share
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import file_hash, read_json, read_tensors, require_regular

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 3
"""Version of the form of `result.json` and `config.json`."""

FILES = ("predictions.npz", "model.pt", "config.json", "metrics.jsonl", "split.csv")
"""Files that belong to a record; the result holds the SHA-256 of each."""


@dataclass(frozen=True)
class SelectedEpoch:
    """The epoch that a trial reports.

    Attributes
    ----------
    metric, score : the selection metric, and what it reached on validation images
    stage, epoch : where, epochs from 0
    """

    metric: str
    score: Share
    stage: str
    epoch: Count


@dataclass(frozen=True)
class StageCost:
    """What one stage took.

    Attributes
    ----------
    name : of the stage
    cached : whether another trial had computed it
    epochs, steps, images : of training
    forward_images : images that went through a backbone, in training and validation
    seconds : of the clock
    rates : learning rates of its parameter groups, as multiples of the protocol's
    stopping : in what its stop rule differs from the protocol's, in words; empty where it does not
    """

    name: str
    cached: bool
    epochs: Count
    steps: Count
    images: Count
    forward_images: Count
    seconds: Amount
    rates: tuple[Amount, ...] = ()
    stopping: str = ""


@dataclass(frozen=True)
class Cost:
    """What a trial took, shared stages charged in full.

    Attributes
    ----------
    train_seconds : of the clock, all stages and the passes between them
    images_seen : training images, every view, and those of partner streams
    forward_images : images that went through a backbone: every pass of every network, in training, validation, and
        features and scoring between stages
    parameters : of the method
    peak_memory_mib : of the device on a GPU, else of the process; None where the system does not report it
    stages : in order
    cpu_seconds : CPU time of the process in `train_seconds`, all its threads; None in records of earlier versions
    trained_parameters : those that are not frozen; None in records of earlier versions
    """

    train_seconds: Amount
    images_seen: Count
    forward_images: Count
    parameters: Count
    peak_memory_mib: Amount | None
    stages: tuple[StageCost, ...]
    cpu_seconds: Amount | None = None
    trained_parameters: Count | None = None


@dataclass(frozen=True)
class StartingWeights:
    """The weights that every network of a trial starts from, where they are not random.

    Attributes
    ----------
    source : `timm:MODEL.TAG`, `file:NAME` or `hub:ID`
    sha256 : of their file; None where timm had it from its own source
    licence : as the weights' description has it; None where there is none
    training_data : what they were trained on; None where it is not known
    may_have_seen_test : whether test images may be among it; a name that nothing is known of is `unknown`
    """

    source: str
    sha256: str | None
    licence: str | None
    training_data: str | None
    may_have_seen_test: bool | Literal["unknown"]


@dataclass(frozen=True)
class Result:
    """What `result.json` holds; in the file, the description of the data lies flat among the rest.

    Attributes
    ----------
    data : what was trained and tested on
    method, hyperparameters, changed : name, all values, and those that differ from the preset's defaults
    plugin : SHA-256 of the method's file where it is a plug-in
    trial, seed : number from 0, and the seed that it gave
    protocol, protocol_digest : what all methods share
    split_digest : SHA-256 of the split's manifest
    val, test : metrics
    selection : the epoch that is reported
    cost : of the trial
    code_version, code_version_at_start, versions, device, device_type, threads : where it was made
    files : SHA-256 of each of `FILES`
    inspected : what `Method.inspect` gave of each part, by class
    story : what the method reported of its decisions between stages
    weights : what training started from; None: random weights, or a record of an earlier version
    """

    data: DataDescription
    method: str
    hyperparameters: Mapping[str, Any]
    changed: Mapping[str, Any]
    plugin: str | None
    trial: Count
    seed: Count
    protocol: ProtocolValues
    protocol_digest: str
    split_digest: str
    val: Scores
    test: Scores
    selection: SelectedEpoch
    cost: Cost
    code_version: str
    versions: Mapping[str, str]
    device: str
    device_type: str
    threads: Count
    files: Mapping[str, str]
    code_version_at_start: str | None = None
    inspected: Mapping[str, Any] = field(default_factory=dict)
    story: Mapping[str, Any] = field(default_factory=dict)
    weights: StartingWeights | None = None

    @classmethod
    def from_json(cls, value: Any, source: Path) -> Result:
        """Return the result that a JSON value describes.

        Parameters
        ----------
        value : as `to_json` gives it
        source : file that it is from, for messages

        Raises
        ------
        UserError : of another schema, of a wrong form, or altered since it was written
        """
        if not isinstance(value, dict) or "schema" not in value:
            raise UserError(f"{source} is no result of a trial; {REMEDY}")
        if value["schema"] != SCHEMA:
            raise UserError(
                f"{source} is of schema {value['schema']!r}, this version of ltbench reads schema {SCHEMA}; {REMEDY}"
            )
        names = {own.name for own in fields(DataDescription)}
        nested = {name: own for name, own in value.items() if name not in names and name != DIGEST}
        nested["data"] = {name: own for name, own in value.items() if name in names}
        try:
            result = _adapter().validate_json(json.dumps(nested), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"] if part != "data")
            wrong = f"lacks {place}" if first["type"] == "missing" else f"has a wrong {place} ({first['msg']})"
            raise UserError(f"{source} {wrong}; {REMEDY}") from error
        unsealed(value, source)
        data = result.data
        reason = class_contradiction(data.class_names, data.class_counts, data.groups, data.special_classes)
        if reason := reason or change_contradiction(result.changed, result.hyperparameters):
            raise UserError(f"{source} contradicts itself: {reason}; {REMEDY}")
        # Validation puts the typed names first; readers are shown the order of the file.
        protocol = {name: result.protocol[name] for name in value["protocol"]}  # type: ignore[literal-required]
        return replace(result, protocol=cast(ProtocolValues, protocol))

    def to_json(self) -> dict[str, Any]:
        """Return the result as `result.json` keeps it."""
        rest = {name: own for name, own in as_json(self).items() if name != "data"}
        return sealed({"schema": SCHEMA, **self.data.to_json(), **rest})

    @property
    def folds(self) -> int:
        """How many folds there are, of which this trial tests one; 0 where it is not of a cross-validation."""
        return self.protocol.get("folds", 0)

    @property
    def deciding_threads(self) -> int:
        """CPU threads where numbers depend on them; 1 on a GPU, where they do not."""
        return self.threads if self.device_type == "cpu" else 1


@cache
def _adapter() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


@dataclass(frozen=True)
class Record:
    """One finished trial.

    Attributes
    ----------
    folder : of the trial
    result : what its `result.json` holds
    derived : where what is computed from it is kept; None: nowhere
    """

    folder: Path
    result: Result
    derived: DerivedFiles | None = field(default=None, compare=False, repr=False)

    @classmethod
    def read(cls, folder: Path, derived: DerivedFiles | None = None) -> Record:
        """Return the record of a finished trial's folder.

        Raises
        ------
        UserError : its result is missing, corrupt or of another schema
        """
        return cls(folder, read_result(folder / "result.json"), derived)

    def derive(self, key: str, compute: Callable[[], Derived]) -> Derived:
        """Return what is kept under a key, or else computed; see `DerivedFiles.get`."""
        return compute() if self.derived is None else self.derived.get(key, compute)

    def path(self, name: str) -> Path:
        """Return where a file of the record lies: the manifest of a split that all trials share, beside their folders.

        Parameters
        ----------
        name : of `FILES`
        """
        shared = name == "split.csv" and self.result.data.varied_from is None
        return (self.folder.parent if shared else self.folder) / name

    def verified(self, name: str) -> Path:
        """Return the path of a file of the record, after checking that its bytes are those that were recorded.

        Parameters
        ----------
        name : of `FILES`

        Raises
        ------
        UserError : missing, or altered since the trial ended
        """
        path = self.path(name)
        try:
            found = file_hash(require_regular(path))
        except OSError as error:
            raise UserError(f"{path} is not readable ({error}); {REMEDY}") from error
        if found != self.result.files.get(name):
            raise UserError(f"{path} is not the file that {self.folder / 'result.json'} was made with; {REMEDY}")
        return path

    def predictions(self) -> dict[str, np.ndarray]:
        """Return ids, labels and logits of validation and test images.

        Raises
        ------
        UserError : missing, corrupt or altered, naming the file
        """
        path, classes = self.verified("predictions.npz"), len(self.result.data.class_names)
        arrays = read_predictions(path)
        for part in PARTS:
            if arrays[f"{part}_logits"].shape[1] != classes:
                raise UserError(f"{path} has {part} logits of other than {classes} classes; {REMEDY}")
        return arrays

    def test_predictions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids [n], labels [n] and logits [n, K] of the test images.

        Raises
        ------
        UserError : missing, corrupt or altered, naming the file
        """
        arrays = self.predictions()
        return arrays["test_ids"], arrays["test_labels"], arrays["test_logits"]

    def manifest(self) -> Manifest:
        """Return the split.

        Raises
        ------
        UserError : missing or altered, naming the file
        """
        return Manifest.verify(self.path("split.csv"), self.result.split_digest)

    def lesions(self, ids: np.ndarray) -> np.ndarray | None:
        """Return the lesion of each of some images, str [n], an image's own id where it has none; None: no split here.

        Raises
        ------
        UserError : the split is altered, naming record and file
        """
        if not self.path("split.csv").exists():
            return None
        try:
            manifest = self.manifest()
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from error
        lesion = dict(zip(manifest.ids.tolist(), manifest.lesions.tolist(), strict=True))
        return np.array([lesion.get(image_id, image_id) for image_id in ids.tolist()])

    def model(self, device: str = "cpu") -> dict[str, Tensor]:
        """Return the weights of the reported epoch, as `load_state_dict` of the method takes them.

        Raises
        ------
        UserError : missing, corrupt or altered, naming the file
        """
        return read_tensors(self.verified("model.pt"), device)


def read_result(path: Path) -> Result:
    """Return a `result.json`.

    Raises
    ------
    UserError : corrupt, of another schema or of a wrong form, naming the file
    """
    return Result.from_json(read_json(path), path)


def find_records(
    results: Path, pattern: str = "*/*/trial*/result.json", derived: DerivedFiles | None = None
) -> Iterator[Record]:
    """Yield every finished trial under a results folder, in order of path.

    Parameters
    ----------
    pattern : of the paths to look at
    derived : as for `Record`

    Raises
    ------
    UserError : the folder is missing, or a result is corrupt or of another schema
    """
    for folder in trial_folders(results, pattern):
        yield Record.read(folder, derived)


def trial_folders(results: Path, pattern: str) -> list[Path]:
    """Return the folders of the finished trials under a results folder, in order of path.

    Raises
    ------
    UserError : the folder is missing
    """
    if not results.is_dir():
        state = "is a file" if results.exists() else "does not exist"
        raise UserError(f"results folder {results} {state}; give --results the folder that `ltbench run --out` fills")
    return [path.parent for path in sorted(results.glob(pattern))]
