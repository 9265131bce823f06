"""Methods that begin with plain training: one model for all of them, and what each may change after it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ltbench.benchmarks.records import read_predictions, read_tensors
from ltbench.benchmarks.trial import run_trial
from ltbench.methods import Method, Task, create

COUNTS = np.array([40, 10, 5, 20], dtype=np.int64)
BEGIN_PLAIN = ("crt", "curriculumnet", "la_posthoc", "lws", "oltr", "tau_norm")


def method(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    return create(name, Task(4, COUNTS, 32), timm.create_model("test_resnet", num_classes=0), **options)


def result_of(spec: Any) -> dict[str, Any]:
    return json.loads((spec.folder / "result.json").read_text())


def rows_of(spec: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]


def test_plain_training_is_done_once_and_charged_to_all(make_spec: Any) -> None:
    plain = make_spec("ce")
    run_trial(plain)
    first = [{**row, "stage": "erm"} for row in rows_of(plain)]
    cost = result_of(plain)["cost"]["stages"][0]
    for name in BEGIN_PLAIN:
        spec = make_spec(name)
        run_trial(spec)
        assert [row for row in rows_of(spec) if row["stage"] == "erm"] == first
        stage = result_of(spec)["cost"]["stages"][0]
        assert stage == {**cost, "cached": True}
        assert result_of(spec)["cost"]["train_seconds"] >= cost["seconds"]


def test_plain_training_comes_out_alike_whoever_does_it(make_spec: Any, numbers_of: Any, tmp_path: Any) -> None:
    alone = make_spec("ce", out=tmp_path / "alone")
    run_trial(alone)
    for name in ("lws", "ce"):
        spec = make_spec(name, out=tmp_path / "together")
        run_trial(spec)
    assert result_of(spec)["cost"]["stages"][0]["cached"]
    assert numbers_of(spec) == numbers_of(alone)


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


def test_the_new_classifier_is_not_the_old_one(make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("name", "highest", "count"), [("tau_norm", 1.0, 11), ("la_posthoc", 2.0, 9)])
def test_the_strength_is_chosen_on_validation(name: str, highest: float, count: int, make_spec: Any) -> None:
    spec = make_spec(name)
    run_trial(spec)
    scores = {row["stage"]: float(np.mean(row["val_recall"])) for row in rows_of(spec) if row["stage"] != "erm"}
    assert len(scores) == count and f"tau={highest:g}" in scores and "tau=0" in scores
    selection = result_of(spec)["selection"]
    assert selection["stage"] == max(scores, key=scores.get) and selection["score"] == max(scores.values())
    chosen = read_tensors(spec.folder / "model.pt")["tau"].item()
    assert selection["stage"] == f"tau={round(chosen, 6):g}"


@pytest.mark.parametrize("name", ["tau_norm", "la_posthoc"])
def test_a_strength_that_is_given_is_used(name: str, make_spec: Any) -> None:
    spec = make_spec(name, tau=0.3)
    run_trial(spec)
    assert [row["stage"] for row in rows_of(spec) if row["stage"] != "erm"] == ["tau=0.3"]
    assert read_tensors(spec.folder / "model.pt")["tau"].item() == pytest.approx(0.3)


def test_post_hoc_adjustment_without_strength_is_plain_training(make_spec: Any) -> None:
    plain, adjusted = make_spec("ce"), make_spec("la_posthoc", tau=0.0)
    for spec in (plain, adjusted):
        run_trial(spec)
    one, two = (read_predictions(spec.folder / "predictions.npz") for spec in (plain, adjusted))
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_post_hoc_adjustment_subtracts_the_log_prior() -> None:
    adjusted = method("la_posthoc", tau=1.5)
    features = torch.randn(6, 96)
    expected = adjusted.head(features).double() - 1.5 * torch.from_numpy(np.log(COUNTS / COUNTS.sum()))
    torch.testing.assert_close(adjusted.classify(features).double(), expected, rtol=0, atol=1e-6)
    equal = create("la_posthoc", Task(4, np.full(4, 7), 32), adjusted.backbone, tau=1.5)
    equal.load_state_dict({**adjusted.state_dict(), "log_priors": equal.log_priors})
    assert torch.equal(equal.classify(features).argmax(1), equal.head(features).argmax(1))


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_tau_norm_divides_by_the_length_and_drops_the_bias(tau: float) -> None:
    normed = method("tau_norm", tau=tau)
    features = torch.randn(6, 96)
    expected = torch.stack([features.double() @ row / row.norm() ** tau for row in normed.head.weight.double()], dim=1)
    torch.testing.assert_close(normed.classify(features).double(), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        normed.head.bias += 5.0
    torch.testing.assert_close(normed.classify(features).double(), expected, rtol=0, atol=1e-5)


def test_weight_scaling_scales_the_bias_too() -> None:
    scaled = method("lws")
    features = torch.randn(6, 96)
    torch.testing.assert_close(scaled.classify(features), scaled.head(features))
    with torch.no_grad():
        scaled.scale.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0]))
    expected = scaled.scale * (features @ scaled.head.weight.T + scaled.head.bias)
    torch.testing.assert_close(scaled.classify(features), expected)


@pytest.mark.parametrize("name", ["tau_norm", "la_posthoc", "lws"])
def test_permuting_the_classes_permutes_the_logits(name: str) -> None:
    order, features = torch.tensor([2, 0, 3, 1]), torch.randn(5, 96)
    one = method(name, **({"tau": 0.7} if name != "lws" else {}))
    other = create(name, Task(4, COUNTS[order], 32), one.backbone, **({"tau": 0.7} if name != "lws" else {}))
    with torch.no_grad():
        if name == "lws":
            one.scale.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0]))
            other.scale.copy_(one.scale[order])
        other.head.weight.copy_(one.head.weight[order])
        other.head.bias.copy_(one.head.bias[order])
    torch.testing.assert_close(other.classify(features), one.classify(features)[:, order])


def test_batches_of_the_second_stage_are_class_aware(make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltbench.methods import crt

    seen = []
    stream = crt.class_aware_stream

    def recorded(labels: np.ndarray, *arguments: Any) -> np.ndarray:
        drawn = stream(labels, *arguments)
        seen.append(np.bincount(labels[drawn], minlength=8))
        return drawn

    monkeypatch.setattr(crt, "class_aware_stream", recorded)
    run_trial(make_spec("crt"))
    assert len(seen) == 1 and all(counts.max() - counts.min() <= 4 for counts in seen)
