"""Logits in fewer bytes: the same decisions, and metrics as of all digits."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from ltbench.benchmarks.analysis.metrics import METRICS, evaluate, frequency_groups
from ltbench.benchmarks.analysis.record_files import stored_logits
from ltbench.benchmarks.analysis.record_files.predictions import PARTS, read_predictions
from ltbench.files import write_arrays

CLASSES = 24


def drawn(images: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    logits = 2 * rng.normal(size=(images, CLASSES)) + 4 * np.eye(CLASSES)[labels]
    logits[::7] = np.round(logits[::7])  # several classes share the largest
    logits[1::7, :2] = logits[1::7].max(axis=1, keepdims=True) + np.array([0.0, 1e-6])  # or nearly
    logits[2, 3] = -1e6
    return labels, logits.astype(np.float32)


@pytest.mark.parametrize(("plain", "dense", "bytes_"), [(2**22, 2000, 4.0), (0, 2000, 2.0), (0, 0, 20 * 3 / CLASSES)])
def test_decisions_are_exact_and_metrics_to_a_thousandth_of_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: int, dense: int, bytes_: float
) -> None:
    for name, value in {"PLAIN_NUMBERS": plain, "DENSE_CLASSES": dense, "KEPT": 20}.items():
        monkeypatch.setattr(stored_logits, name, value)
    labels, logits = drawn(20000)
    kept = stored_logits.stored(logits)
    assert sum(own.nbytes for own in kept.values()) < (bytes_ + 0.2) * logits.size
    arrays = {"ids": labels.astype(str), "labels": labels, **kept}
    write_arrays(tmp_path / "a.npz", {f"{part}_{name}": own for part in PARTS for name, own in arrays.items()})
    read = read_predictions(tmp_path / "a.npz")["val_logits"]
    assert read.dtype == np.float32 and (read.argmax(1) == logits.argmax(1)).all()
    np.testing.assert_allclose(softmax(read, axis=1), softmax(logits, axis=1), atol=1e-2)
    groups = frequency_groups(range(CLASSES))
    own, others = evaluate(labels, read, groups), evaluate(labels, logits, groups)
    ranked = {"macro_auroc", "macro_auprc", "cross_entropy"} if dense == 0 else set()
    for name in METRICS:
        assert own[name] == pytest.approx(others[name], abs=1e-2 if name in ranked else 1e-5), name
    if ranked:  # classes that are not kept share what is left
        others_of = np.sort(read[0])[: CLASSES - 20]
        assert len(set(others_of.tolist())) == 1
        left = np.sort(softmax(logits[0].astype(float)))[: CLASSES - 20].sum()
        assert softmax(read[0].astype(float)).min() * (CLASSES - 20) == pytest.approx(left, rel=0.01)
