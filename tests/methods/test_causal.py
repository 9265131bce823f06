"""De-confounded training: the moving mean, what it changes and when, the choice of its strength."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour

from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.files import read_tensors
from ltbench.methods import Batch, Progress

COUNTS = np.array([10, 400, 5], dtype=np.int64)


def test_training_fills_the_mean_that_evaluation_takes_off(batch: Batch) -> None:
    method = method_on_colour("causal", COUNTS)
    features = method.features(batch.images).detach()
    plain = method.classify(features)
    assert torch.equal(method.eval().classify(features), plain)
    for _ in range(2):
        method.train().loss(batch, Progress(0, 1))
    torch.testing.assert_close(method.head.mean, 1.9 * features.mean(0))
    assert torch.equal(method.classify(features), plain)
    changed = method.eval().classify(features)
    assert not torch.allclose(changed, plain)
    method.head.alpha.fill_(0.0)
    torch.testing.assert_close(method.classify(features), plain)


@pytest.mark.parametrize("alpha", [None, 2.5])
def test_the_strength_is_chosen_on_validation_or_given(alpha: float | None, make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=1)
    spec = make_spec("causal", protocol=short, **({} if alpha is None else {"alpha": alpha}))
    run_trial(spec)
    rows = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
    scores = {row["stage"]: np.mean(row["val_recall"]) for row in rows if row["stage"] != "train"}
    chosen = json.loads((spec.folder / "result.json").read_text())["selection"]["stage"]
    kept = read_tensors(spec.folder / "model.pt")
    assert kept["head.mean"].abs().sum() > 0
    if alpha is None:
        assert len(scores) == 7 and chosen == max(scores, key=scores.__getitem__) == f"alpha={kept['head.alpha']:g}"
    else:
        assert not scores and chosen == "train" and kept["head.alpha"] == alpha


def test_chunks_that_do_not_divide_the_features_are_refused() -> None:
    with pytest.raises(UserError):
        method_on_colour("causal", COUNTS, chunks=3)
