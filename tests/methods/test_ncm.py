"""NCM: its means are those of the training set, and its decisions those of the nearest one."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mean_colour import method_on_colour

from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.training.trial import run_trial
from ltbench.files import read_tensors
from ltbench.methods import Stage

COUNTS = np.array([3, 5, 1], dtype=np.int64)
LABELS = np.array([1, 0, 1, 1, 2, 0, 1, 0, 1])
FEATURES = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


class Run:
    """What `stages` asks of a run."""

    epochs, labels = 2, LABELS

    def early_stopping(self) -> None:
        return None

    def features(self) -> np.ndarray:
        return FEATURES

    def memo(self, name: str, compute: Any, *, story: bool = True) -> Any:
        return compute()


def test_decides_for_the_nearest_mean() -> None:
    method = method_on_colour("ncm", COUNTS, feature_type="un")
    stages = list(method.stages(Run()))
    assert [(type(stage), stage.epochs) for stage in stages] == [(Stage, 2), (Stage, 0)]
    means = np.stack([FEATURES[label == LABELS].mean(axis=0) for label in range(3)])
    distances = ((FEATURES[:, None] - means) ** 2).sum(axis=2)
    scores = method.classify(torch.from_numpy(FEATURES)).numpy()
    np.testing.assert_allclose(scores, -distances, rtol=1e-4, atol=1e-6)
    assert scores[4].argmax() == 2  # the only image of its class is its mean


def test_the_model_is_that_of_plain_training(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    plain, spec = make_spec("ce", protocol=short), make_spec("ncm", protocol=short)
    for each in (plain, spec):
        run_trial(each)
    before, after = (read_tensors(each.folder / "model.pt") for each in (plain, spec))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert after["centroids"].abs().sum() > 0
    logits = read_predictions(spec.folder / "predictions.npz")["test_logits"]
    assert (logits <= 0).all() and (logits >= -4).all()
