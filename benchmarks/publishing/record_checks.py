"""Whether a published record holds: where it lies, what made it, what it selected, and every number from its logits."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ltbench import methods
from ltbench.benchmarks.analysis.metrics import FURTHER, evaluate
from ltbench.benchmarks.analysis.record_files.predictions import PARTS
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.publishing.board import Board, BoardSetting
from ltbench.benchmarks.training.journal import report_from
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import content_digest, plain, require_regular
from ltbench.methods.hyperparameters import configure
from ltbench.methods.stages import EpochReport

AGREEMENT = 1e-9
"""Largest difference of a stated number from the one that the logits, or the epochs, give."""


def check_record(board: Board, record: Record) -> None:
    """Check that a record belongs to a board and that its numbers are what its logits and its epochs give.

    Raises
    ------
    UserError : saying what differs
    """
    setting, result = board.setting_of(record), record.result
    require_known_code(record)
    _check_method(board, record)
    protocol = Protocol.from_json(dict(result.protocol))
    _check_identity(setting, record, protocol)
    board.require_own_place(record)
    for name in ("predictions.npz", *({"metrics.jsonl"} & result.files.keys())):  # early records have not the latter
        record.verified(name)
    _check_selection(record, protocol)
    _check_epochs(record)
    manifest = Manifest.verify(board.split_path(result.split_digest), result.split_digest)
    _check_classes(record, manifest)
    check_numbers(record, manifest)
    missing = [name for name in board.metrics if name not in result.test]
    if missing:
        raise UserError(f"{record.folder / 'result.json'} lacks the metrics {', '.join(missing)}")


def require_known_code(record: Record) -> None:
    """Check that a record says from which commit its code was, and that nothing in it was changed.

    Raises
    ------
    UserError
    """
    result = record.result
    for version in (result.code_version, result.code_version_at_start or result.code_version):
        if "dirty" in version:
            raise UserError(
                f"{record.folder} was made by changed code ({version}); commit it, and train the trial again (--fresh "
                f"--trial {result.trial})"
            )
        if not re.fullmatch(r"[^+]+\+[0-9A-Za-z.-]+", version):
            raise UserError(
                f"{record.folder} does not say which commit made it ({version or 'no version'}); train it again from a "
                "clone with its .git folder"
            )


def _check_method(board: Board, record: Record) -> None:
    """Check that the method is there: the file of a plug-in, or one of the package with its defaults of now."""
    result = record.result
    if result.plugin is not None:
        path = board.plugin_path(result.plugin)
        if not path.exists() or content_digest(require_regular(path).read_bytes()) != result.plugin:
            raise UserError(f"{record.folder} is of a method from outside the package, and {path} is not its file")
        return
    if result.method not in methods.available():
        raise UserError(f"{record.folder} is of the method {result.method!r}, which this package does not have")
    config = methods.registry.get(result.method).Config
    defaults = plain(asdict(configure(result.method, config, result.protocol["preset"], {})))
    other = [name for name in result.hyperparameters if name not in defaults]
    if other:
        raise UserError(f"{record.folder}: {result.method} has no hyper-parameter {other[0]!r}")
    changed = {name: value for name, value in result.hyperparameters.items() if plain(value) != defaults[name]}
    if plain(changed) != plain(result.changed):
        raise UserError(
            f"{record.folder}: of its hyper-parameters, {', '.join(changed) or 'none'} differ from the defaults of "
            f"{result.method}, and not {', '.join(result.changed) or 'none'}"
        )


def _check_identity(setting: BoardSetting, record: Record, protocol: Protocol) -> None:
    """Check that protocol, seed and number are those of the trial."""
    result = record.result
    if protocol.digest() != result.protocol_digest:
        raise UserError(f"{record.folder}: its protocol does not have the digest that it states")
    if result.seed != protocol.seed + result.trial:
        raise UserError(f"{record.folder} has the seed {result.seed}, which is not that of its trial {result.trial}")
    if result.trial >= setting.trials:
        raise UserError(
            f"{record.folder} is trial {result.trial}; setting {setting.name!r} has {setting.trials} trials"
        )


def _check_selection(record: Record, protocol: Protocol) -> None:
    """Check that the reported epoch was chosen by the protocol's metric, and has the score that validation gives."""
    selection = record.result.selection
    score = dict(record.result.val).get(protocol.selection_metric)
    wrong = selection.metric != protocol.selection_metric or not isinstance(score, int | float)
    if wrong or abs(float(score) - selection.score) > AGREEMENT:  # type: ignore[arg-type]
        raise UserError(
            f"{record.folder / 'result.json'}: its selection, {selection.metric} {selection.score}, is not "
            f"{protocol.selection_metric} on validation, {score}"
        )


def _check_epochs(record: Record) -> None:
    """Check that the epochs of `metrics.jsonl` are those of the stages, and the reported one the best of its stage."""
    path, result = record.path("metrics.jsonl"), record.result
    reports: dict[str, list[EpochReport]] = defaultdict(list)
    for report in _epochs(record):
        reports[report.stage].append(report)
    if reports.keys() != {stage.name for stage in result.cost.stages if reports.get(stage.name) or stage.epochs}:
        raise UserError(f"{path} has the stages {', '.join(reports) or 'none'}, which are not those of the result")
    for stage in result.cost.stages:
        own = reports.get(stage.name, [])
        found = (sum(report.steps for report in own), sum(report.images for report in own))
        if found != (stage.steps, stage.images):
            raise UserError(f"{path} has {found} steps and images of {stage.name}, not {(stage.steps, stage.images)}")
    if sum(stage.images for stage in result.cost.stages) != result.cost.images_seen:
        raise UserError(f"{record.folder / 'result.json'}: images_seen is not the sum of its stages")
    selected = result.selection
    scores = {report.epoch: report.score for report in reports.get(selected.stage, [])}
    score = scores.get(selected.epoch, -np.inf)
    if abs(score - selected.score) > AGREEMENT or max(scores.values()) > score + AGREEMENT:
        raise UserError(
            f"{path}: epoch {selected.epoch} of {selected.stage}, which is reported with {selected.score}, is not the "
            "best one of that stage, or has another score"
        )


def _epochs(record: Record) -> list[EpochReport]:
    path = record.path("metrics.jsonl")
    try:
        return [report_from(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not hold the epochs of a trial ({error})") from error


def _check_classes(record: Record, manifest: Manifest) -> None:
    """Check that classes and their training images are those of the split."""
    data = record.result.data
    named = dict(zip(manifest.labels.tolist(), manifest.classes.tolist(), strict=True))
    counts = manifest.class_counts("train", len(data.class_names)).tolist()
    if any(data.class_names[label] != name for label, name in named.items()) or list(data.class_counts) != counts:
        raise UserError(f"{record.folder / 'result.json'}: its classes, or their training images, are not of the split")


def check_numbers(record: Record, manifest: Manifest) -> None:
    """Check that the predictions are of the images of a split, and that they give the metrics which the result states.

    Raises
    ------
    UserError : naming the first number that differs
    """
    arrays, data, result = record.predictions(), record.result.data, record.result
    for part in PARTS:
        ids, labels, logits = (arrays[f"{part}_{name}"] for name in ("ids", "labels", "logits"))
        named, classes = manifest.part(part)
        order = np.argsort(named)
        if not (np.array_equal(np.sort(ids), named[order]) and np.array_equal(labels[np.argsort(ids)], classes[order])):
            raise UserError(f"{record.folder / 'predictions.npz'}: its {part} images are not those of the split")
        stated = getattr(result, part)
        further = [name for name in FURTHER if name in stated]  # records of earlier versions hold them
        found = evaluate(labels, logits, data.groups, data.class_names, data.special_classes, further)
        if difference := _difference(dict(stated), plain(found)):
            raise UserError(f"{record.folder / 'result.json'}: {part} {difference}")


def _difference(stated: Any, found: Any, place: str = "") -> str:
    """Return where nested JSON values differ by more than `AGREEMENT`, and how; empty where nowhere."""
    if isinstance(stated, Mapping) and isinstance(found, Mapping) and stated.keys() == found.keys():
        return next(filter(None, (_difference(stated[name], found[name], f"{place} {name}") for name in found)), "")
    if isinstance(stated, Sequence) and not isinstance(stated, str) and isinstance(found, list):
        if len(stated) == len(found):
            pairs = enumerate(zip(stated, found, strict=True))
            return next(filter(None, (_difference(*pair, f"{place}[{at}]") for at, pair in pairs)), "")
    elif isinstance(stated, int | float) and isinstance(found, int | float):
        if abs(stated - found) <= AGREEMENT:
            return ""
    elif stated == found:
        return ""
    return f"states{place} {stated!r}, its logits give {found!r}"


def check_description(setting: BoardSetting, records: Sequence[Record]) -> None:
    """Check that the records of a setting say the same of their data.

    Raises
    ------
    UserError : naming two that do not
    """
    for first, second in itertools.pairwise(setting.among(records)):
        one, other = (_described(record) for record in (first, second))
        differing = [name for name in one if one[name] != other[name]]
        if differing:
            raise UserError(f"{second.folder} says otherwise than {first.folder} of the data: {', '.join(differing)}")


def _described(record: Record) -> Mapping[str, Any]:
    data = record.result.data
    varied = () if data.varied_from is None else ("overlap", "notes", "pixels", "class_counts", "groups")
    return {name: value for name, value in asdict(data).items() if name not in (*varied, "stored_size")}
