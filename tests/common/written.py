"""Records written by hand, as trials write them, with the split and the epochs of toy data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.benchmarks.analysis.metrics import evaluate, frequency_groups
from ltbench.benchmarks.analysis.record_files.sealed import write_sealed
from ltbench.benchmarks.analysis.records import SCHEMA, Record, find_records
from ltbench.benchmarks.analysis.rows import Row
from ltbench.benchmarks.analysis.standings import settings_of
from ltbench.benchmarks.training.protocol import PRESETS, Protocol
from ltbench.datasets.splits.manifest import Manifest
from ltbench.files import file_hash, json_digest, read_json, write_arrays, write_lines

QUICK = PRESETS["quick"]
COUNTS = (300, 100, 30, 10)
EPOCHS = (
    {"stage": "pretrain", "epoch": 0, "terms": {"loss": 5.0}, "val_recall": None, "val_loss": None},
    {"stage": "train", "epoch": 0, "terms": {"loss": 1.0}, "val_recall": [0.5, 0.25, None, 0.0], "val_loss": 1.5},
    {"stage": "train", "epoch": 1, "terms": {}, "val_recall": [1.0, 0.5, 0.5, 0.0], "val_loss": 0.5},
)
STORY = {
    "anchors": {
        **{"counts": [3, 2, 2, 1], "indices": [7, 2, 9, 301, 300, 410, 405, 430]},
        "edges": [9, 8, 6, 5, 4, 399, 429, 439],
    },
    **{
        f"query{number}": {
            **{"epoch": 3 * number, "accuracy": [0.5, 1.0, None, 0.0], "difficulty": [0.8, 0.0, 1.6, 1.6]},
            **{"quotas": [len(rows), 0, 0, 0], "queried": rows, "information": scores},
            **{"lowest": [90 - number, 95, 390, 391], "lowest_information": [0.001 * number, 0.01, 0.02, 0.0]},
            "pool_left": [297 - left, 98, 28, 9],
        }
        for number, rows, scores, left in (
            (10, [50, 51], [0.1, 0.9], 9),
            (2, [20, 21, 22, 23, 24, 25, 26], [0.2, 0.8, 0.4, 0.5, 0.3, 0.6, 0.7], 7),
        )
    },
}
TOLD = [
    {"stage": "anchors", "epoch": epoch, "terms": {"loss": 1.0}, "val_recall": [0.1 * epoch] * 4, "val_loss": 1.0}
    for epoch in range(6)
]
TOLD += [{**EPOCHS[2], "stage": stage, "epoch": epoch} for stage in ("query2", "query10") for epoch in range(3)]
_RESULT = {
    **{"schema": SCHEMA, "dataset": "toy", "variant": "", "title": "Toy lesions", "split": "paper", "ratio": 30.0},
    **{
        "licence": "",
        "citation": "",
        "natural": False,
        "special_classes": [],
        "overlap": {},
        "notes": [],
        "group_name": "lesion",
    },
    **{"pixels": "", "plugin": None, "split_digest": "5" * 64, "device": "a device", "threads": 1},
    **{"device_type": "cpu", "files": {}},
    **{
        "code_version": "0",
        "versions": {},
        "code_version_at_start": "0",
        "inspected": {},
        "story": {},
        "weights": None,
    },
    "selection": {"metric": "val_mean_class_accuracy", "score": 0.5, "stage": "train", "epoch": 1},
}
_COST = {
    **{"train_seconds": 10.0, "images_seen": 5000, "forward_images": 6000, "parameters": 77},
    **{"peak_memory_mib": None, "stages": [], "cpu_seconds": None, "trained_parameters": None},
}


def predictions_of(
    num_classes: int, test_counts: Sequence[int], accuracy: float, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [n] and logits [n, K] of predictions that are right with a probability."""
    labels, rng = np.repeat(np.arange(num_classes), test_counts), np.random.default_rng(seed)
    shift = 1 + rng.integers(num_classes - 1, size=len(labels))
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, (labels + shift) % num_classes)
    noise = rng.random((len(labels), num_classes))
    return labels, (3 * np.eye(num_classes)[predicted] + noise).astype(np.float32)


def write_record(
    results: Path,
    method: str,
    trial: int,
    accuracy: float,
    *,
    protocol: Protocol = QUICK,
    changed: dict[str, Any] | None = None,
    hyperparameters: dict[str, Any] | None = None,
    class_counts: Sequence[int] = COUNTS,
    test_counts: Sequence[int] = (20, 20, 20, 20),
    class_names: Sequence[str] | None = None,
    cost: Mapping[str, Any] | None = None,
    logits: np.ndarray | None = None,
    first_id: int = 0,
    **setting: Any,
) -> Record:
    """Write the record of one trial, whose test predictions are right with a probability.

    Parameters
    ----------
    hyperparameters, changed : all, and those that differ from the defaults
    logits : of the test images, instead of those of `accuracy`
    first_id : number of the first image
    setting : any key of `result.json`
    """
    groups = frequency_groups(class_counts)
    labels, drawn = predictions_of(len(class_counts), test_counts, accuracy, [trial, *method.encode()])
    logits = drawn if logits is None else logits
    names = list(class_names or "abcdefghijklmnopqrst"[: len(class_counts)])
    measured = evaluate(labels, logits, groups, names, setting.get("special_classes", ()))
    result = {
        **_RESULT,
        **{"class_names": names, "class_counts": list(class_counts), "groups": groups},
        **{"method": method, "hyperparameters": hyperparameters or changed or {}, "changed": changed or {}},
        **{"trial": trial, "seed": trial, "protocol": asdict(protocol), "protocol_digest": protocol.digest()},
        **{"test": measured, "val": measured, "cost": {**_COST, "train_seconds": 10.0 + trial, **(cost or {})}},
        **setting,
    }
    tag = json_digest([changed, hyperparameters, protocol.digest(), *map(str, setting.items())])[:8]
    setting_folder = f"{result['dataset']}-{result['split']}-r{result['ratio']:g}"
    folder = results / setting_folder / f"{method}-{tag}" / f"trial{trial}"
    arrays = {"ids": np.array([f"i{first_id + row}" for row in range(len(labels))]), "labels": labels, "logits": logits}
    saved = {f"{part}_{name}": array for part in ("val", "test") for name, array in arrays.items()}
    digest = write_arrays(folder / "predictions.npz", saved)
    write_sealed(folder / "result.json", {**result, "files": {"predictions.npz": digest}})
    return Record.read(folder)


def reseal(folder: Path, **changed: Any) -> None:
    """Change values of a trial's `result.json` and renew all digests in it, as nothing but a forger would."""
    kept = ("predictions.npz", "model.pt", "metrics.jsonl")
    files = {name: file_hash(folder / name) for name in kept if (folder / name).exists()}
    write_sealed(folder / "result.json", {**read_json(folder / "result.json"), **changed, "files": files})


def split_of(counts: Sequence[int], test_counts: Sequence[int]) -> Manifest:
    """Return a split with 2 validation images a class."""
    sizes = {"train": counts, "val": [2] * len(counts), "test": test_counts}
    parts = np.concatenate([np.repeat(part, sum(own)) for part, own in sizes.items()])
    labels = np.concatenate([np.repeat(np.arange(len(counts)), own) for own in sizes.values()])
    ids = np.array([f"i{number:05d}" for number in range(len(labels))])
    return Manifest(ids, labels, np.array([f"class {label}" for label in labels]), ids, parts)


def write_trial(
    results: Path,
    method: str = "ce",
    trial: int = 0,
    *,
    class_counts: Sequence[int] = COUNTS,
    test_counts: Sequence[int] = (20, 20, 20, 20),
    class_names: Sequence[str] | None = None,
    epochs: Sequence[Mapping[str, Any]] = EPOCHS,
    **others: Any,
) -> Record:
    """Write all files of one trial but its weights; it is right two times in three."""
    manifest = split_of(class_counts, test_counts)
    shared = {"class_counts": class_counts, "test_counts": test_counts, "split_digest": manifest.digest}
    names = class_names or [f"class {label}" for label in range(len(class_counts))]
    record = write_record(results, method, trial, 0.67, class_names=names, **shared, **others)
    write_lines(record.folder / "metrics.jsonl", epochs)
    manifest.write(record.folder.parent / "split.csv")
    return record


def rows_of(results: Path) -> tuple[Row, ...]:
    """Return the rows of the one setting that a folder holds."""
    (setting,) = settings_of(find_records(results))
    return setting.rows


def row_of(results: Path, name: str = "ce") -> Row:
    return next(row for row in rows_of(results) if row.name == name)
