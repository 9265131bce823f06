"""Predictions of every built-in method, to the bit: what a change must leave alone, or say that it changes."""

import hashlib
import json
import platform
from pathlib import Path

import pytest
import torch

from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.training.planning.plan import plan, prepare
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.trial import run_trial

KEPT = json.loads((Path(__file__).parent / "fixtures" / "predictions.json").read_text(encoding="utf-8"))
DIGESTS = KEPT["test_and_validation_logits_sha256"]
HERE = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine()}


@pytest.mark.skipif(KEPT["machine"] != HERE, reason=f"digests are of {KEPT['machine']}, this is {HERE}")
def test_predictions_are_what_they_were(tmp_path: Path) -> None:
    request = Request(
        sorted(DIGESTS),
        ratios=[20],
        trials=1,
        dataset="synthetic",
        n_max=100,
        val_per_class=10,
        test_per_class=20,
        protocol={"image_size": 16, "epochs": 3, "precision": "fp32"},
        device="cpu",
        jobs=1,
        out=tmp_path,
    )
    found = {}
    for spec in prepare(plan(request)):
        run_trial(spec)
        arrays = read_predictions(spec.folder / "predictions.npz")
        text = b"".join(arrays[f"{part}_logits"].tobytes() for part in ("val", "test"))
        found[spec.method] = hashlib.sha256(text).hexdigest()
    assert found == DIGESTS
