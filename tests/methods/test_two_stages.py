"""Methods that begin with plain training: one model for all of them, and what each may change after it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.trial import run_trial
from ltbench.files import read_tensors
from ltbench.methods import Method, Task, create
from ltbench.samplers import class_aware_stream

COUNTS = np.array([40, 10, 5, 20], dtype=np.int64)
BEGIN_PLAIN = ("crt", "curriculumnet", "disalign", "la_posthoc", "lws", "ncm", "oltr", "tau_norm")


def method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return create(name, Task(4, COUNTS, 32), timm.create_model("test_resnet", num_classes=0), **options)


def result_of(spec: Any) -> dict[str, Any]:
    return json.loads((spec.folder / "result.json").read_text())


def rows_of(spec: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]


def test_plain_training_is_done_once_and_charged_to_all(make_spec: Any, tiny_protocol: Any) -> None:
    short = replace(tiny_protocol, epochs=2)
    plain = make_spec("ce", protocol=short)
    run_trial(plain)
    first = [{**row, "stage": "train"} for row in rows_of(plain)]
    cost = result_of(plain)["cost"]["stages"][0]
    for name in BEGIN_PLAIN:
        spec = make_spec(name, protocol=short)
        run_trial(spec)
        assert [row for row in rows_of(spec) if row["stage"] == "train"] == first
        stage = result_of(spec)["cost"]["stages"][0]
        assert stage == {**cost, "cached": True}
        assert result_of(spec)["cost"]["train_seconds"] >= cost["seconds"]


@pytest.mark.parametrize("name", ["crt", "lws"])
def test_the_second_stage_moves_what_it_may(name: str, make_spec: Any) -> None:
    plain, spec = make_spec("ce"), make_spec(name)
    for each in (plain, spec):
        run_trial(each)
    before, after = (read_tensors(each.folder / "model.pt") for each in (plain, spec))
    frozen = [key for key in before if key.startswith("backbone.") or name == "lws"]
    assert any("running_mean" in key for key in frozen)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    moved = "scale" if name == "lws" else "head.weight"
    assert not torch.equal(after[moved], before.get(moved, torch.ones_like(after[moved])))
    assert result_of(spec)["selection"]["stage"] == ("scale" if name == "lws" else "classifier")


def test_the_new_classifier_is_not_the_old_one_and_learns(make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []
    plain_reset = torch.nn.Linear.reset_parameters

    def reset(self: torch.nn.Linear) -> None:
        before = self.weight.detach().clone() if hasattr(self, "weight") else None
        plain_reset(self)
        starts.append((before, self.weight.detach().clone()))

    spec = make_spec("crt")
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", reset)
    run_trial(spec)
    trained, anew = starts[-1]
    assert trained.shape == (8, 96) and not torch.equal(trained, anew)
    assert anew.abs().max() <= 1 / np.sqrt(96)
    learned = (read_tensors(spec.folder / "model.pt")["head.weight"] - anew).abs()
    # Adam's first step is as long as the learning rate, in every weight that has a gradient.
    assert 0.9 * spec.protocol.lr < learned.median() < 20 * spec.protocol.lr


def test_the_factors_learn_at_their_own_rate(make_spec: Any) -> None:
    moved = []
    for factor in (1.0, 10.0):
        spec = make_spec("lws", lr_factor=factor)
        run_trial(spec)
        moved.append((read_tensors(spec.folder / "model.pt")["scale"] - 1).abs().max().item())
    assert moved[0] > 0.9 * spec.protocol.lr and moved[1] > 5 * moved[0]


def planted(name: str, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a head's weights [8, 96] and features [n, 96]: every image is right at one strength of the grid alone.

    The weights are multiples of unit vectors, so that a feature's entry is its logit but for the length.
    """
    weights, entries = torch.eye(8, 96), torch.full((8, 8), -20.0)
    entries.fill_diagonal_(10.0)
    if name == "tau_norm":
        weights[0] *= 4.0  # the logit of class 0 is 4 ** (1 - tau) times its entry
        entries[0, :2], entries[1, :2] = torch.tensor([2.0, 3.2]), torch.tensor([1.0, 2.0])  # tau < 0.67, tau > 0.5
    else:  # log(60 / 3) = 3.0 lies between the adjustments of classes 0 and 7
        entries[0, 0], entries[0, 7] = 3.4, 0.0  # tau < 1.13
        entries[7, 0], entries[7, 7] = 2.6, 0.0  # tau > 0.87
    features = torch.zeros(len(labels), 96)
    features[:, :8] = entries[torch.from_numpy(labels)]
    return weights, features


@pytest.mark.parametrize(("name", "best", "highest", "count"), [("tau_norm", 0.6, 1, 11), ("la_posthoc", 1.0, 2, 9)])
def test_the_strength_is_chosen_on_validation(
    name: str, best: float, highest: float, count: int, make_spec: Any, tiny_protocol: Any, monkeypatch: Any
) -> None:
    def blocks(self: Inference, part: Any, indices: Any = None, predict: Any = None) -> Iterator[np.ndarray]:
        weights, features = planted(name, part.labels)
        with torch.no_grad():
            self.method.head.weight.copy_(weights)
            self.method.head.bias.zero_()
            yield self.method.classify(features).numpy()

    monkeypatch.setattr(Inference, "logit_blocks", blocks)
    spec = make_spec(name, protocol=replace(tiny_protocol, epochs=1))
    run_trial(spec)
    scores = {row["stage"]: float(np.mean(row["val_recall"])) for row in rows_of(spec) if row["stage"] != "train"}
    assert len(scores) == count and f"tau={highest:g}" in scores and next(iter(scores)) == "tau=0"
    assert scores.pop(f"tau={best:g}") == 1.0 and set(scores.values()) == {7 / 8}
    selection = result_of(spec)["selection"]
    assert (selection["stage"], selection["score"]) == (f"tau={best:g}", 1.0)
    assert read_tensors(spec.folder / "model.pt")["tau"].item() == pytest.approx(best)


@pytest.mark.parametrize("name", ["tau_norm", "la_posthoc"])
def test_a_strength_that_is_given_is_used(name: str, make_spec: Any) -> None:
    spec = make_spec(name, tau=0.3)
    run_trial(spec)
    assert [row["stage"] for row in rows_of(spec) if row["stage"] != "train"] == ["tau=0.3"]
    assert read_tensors(spec.folder / "model.pt")["tau"].item() == pytest.approx(0.3)


def test_a_class_vector_of_length_zero_has_the_logit_zero() -> None:
    normed = method("tau_norm", tau=0.7)
    with torch.no_grad():
        normed.head.weight[2] = 0.0
    logits = normed.classify(torch.randn(6, 96))
    assert torch.isfinite(logits).all() and (logits[:, 2] == 0).all()
    logits.sum().backward()
    assert torch.isfinite(normed.head.weight.grad).all()


@pytest.mark.parametrize("name", ["crt", "lws"])
@pytest.mark.parametrize(("options", "turn"), [({}, 4), ({"images_per_class": 3}, 3)])
def test_batches_of_the_second_stage_are_class_aware(
    name: str, options: dict[str, int], turn: int, make_spec: Any, tiny_protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    stream = class_aware_stream

    def recorded(labels: np.ndarray, *arguments: Any) -> np.ndarray:
        drawn = stream(labels, *arguments)
        seen.append(labels[drawn])
        return drawn

    monkeypatch.setattr(f"ltbench.methods.{name}.class_aware_stream", recorded)
    run_trial(make_spec(name, protocol=replace(tiny_protocol, epochs=2, epoch_length="steps"), **options))
    (labels,) = seen
    counts, turns = np.bincount(labels, minlength=8), labels[: len(labels) // turn * turn].reshape(-1, turn)
    assert len(labels) >= 8 * turn and counts.max() - counts.min() <= turn
    assert (turns == turns[:, :1]).all() and sorted(turns[:8, 0].tolist()) == list(range(8))
