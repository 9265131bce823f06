"""Records written by hand, as trials write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltbench.benchmarks.analysis.metrics import evaluate, frequency_groups
from ltbench.benchmarks.analysis.records import SCHEMA
from ltbench.benchmarks.training.protocol import PRESETS, Protocol
from ltbench.files import json_digest, write_arrays, write_json

RecordWriter = Callable[..., dict[str, Any]]


_RESULT = {
    **{"schema": SCHEMA, "dataset": "toy", "variant": "", "title": "Toy lesions", "split": "paper", "ratio": 30.0},
    **{"licence": "", "citation": "", "natural": False, "special_classes": [], "overlap": {}, "notes": []},
    **{"pixels": "", "plugin": None, "split_digest": "5" * 64, "device": "a device", "threads": 1},
    **{"code_version": "0", "versions": {}, "code_version_at_start": "0", "inspected": {}, "story": {}},
    "selection": {"metric": "val_mean_class_accuracy", "score": 0.5, "stage": "train", "epoch": 1},
}
_COST = {
    **{"train_seconds": 10.0, "images_seen": 5000, "forward_images": 6000, "parameters": 77},
    **{"peak_memory_mib": None, "stages": []},
}


def _predictions(
    num_classes: int, test_counts: Sequence[int], accuracy: float, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [n] and logits [n, K] of predictions that are right with a probability."""
    labels, rng = np.repeat(np.arange(num_classes), test_counts), np.random.default_rng(seed)
    shift = 1 + rng.integers(num_classes - 1, size=len(labels))
    predicted = np.where(rng.random(len(labels)) < accuracy, labels, (labels + shift) % num_classes)
    noise = rng.random((len(labels), num_classes))
    return labels, (3 * np.eye(num_classes)[predicted] + noise).astype(np.float32)


@pytest.fixture(scope="session")
def add_record() -> RecordWriter:
    """Return a function that writes the record of one trial, whose test predictions are right with a probability.

    Its arguments: results folder, method, trial, accuracy; then class counts of the training and of the test set,
    hyper-parameters (`changed` are those that differ from the defaults), and any key of `result.json`.
    """

    def add(
        results: Path,
        method: str,
        trial: int,
        accuracy: float,
        *,
        protocol: Protocol = PRESETS["quick"],
        changed: dict[str, Any] | None = None,
        hyperparameters: dict[str, Any] | None = None,
        class_counts: Sequence[int] = (300, 100, 30, 10),
        test_counts: Sequence[int] = (20, 20, 20, 20),
        class_names: Sequence[str] | None = None,
        cost: Mapping[str, Any] | None = None,
        **setting: Any,
    ) -> dict[str, Any]:
        groups = frequency_groups(class_counts)
        labels, logits = _predictions(len(class_counts), test_counts, accuracy, [trial, *method.encode()])
        names = list(class_names or "abcdefghijklmnopqrst"[: len(class_counts)])
        measured = evaluate(labels, logits, groups, names)
        result = {
            **_RESULT,
            **{"class_names": names, "class_counts": list(class_counts), "groups": groups},
            **{"method": method, "hyperparameters": hyperparameters or changed or {}, "changed": changed or {}},
            **{"trial": trial, "seed": trial, "protocol": asdict(protocol), "protocol_digest": protocol.digest()},
            **{"test": measured, "val": measured},
            "cost": {**_COST, "train_seconds": 10.0 + trial, **(cost or {})},
            **setting,
        }
        tag = json_digest([changed, hyperparameters, protocol.digest(), *map(str, setting.items())])[:8]
        setting_folder = f"{result['dataset']}-{result['split']}-r{result['ratio']:g}"
        folder = results / setting_folder / f"{method}-{tag}" / f"trial{trial}"
        arrays = {"ids": np.array([f"i{row}" for row in range(len(labels))]), "labels": labels, "logits": logits}
        saved = {f"{part}_{name}": array for part in ("val", "test") for name, array in arrays.items()}
        write_arrays(folder / "predictions.npz", saved)
        write_json(folder / "result.json", result)
        return result

    return add
