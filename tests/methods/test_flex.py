"""Flexible Sampling: what must hold in every trial, and its rules on made-up histories."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mean_colour import method_on_colour

from ltbench.benchmarks.training.device import compute_dtype
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.datasets import pareto_class_counts
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError
from ltbench.methods.base import Method, Run
from ltbench.methods.flex import FlexibleSampling, QueryRule
from ltbench.methods.hyperparameters import configure
from ltbench.methods.stages import EpochReport, Plateau, Stage
from ltbench.samplers import anchor_counts, class_difficulty, class_prototypes, mutual_information, query_quotas

EAGER = {"query_patience": 0.01, "warmup": 0.2, "ssl_budget": 0.3}


@pytest.fixture
def stuck(tiny_protocol: Protocol) -> Protocol:
    """A learning rate at which nothing is learned: every epoch after warm-up is one without a rise."""
    return replace(tiny_protocol, lr=1e-9)


def _run(spec: Any) -> dict[str, Any]:
    run_trial(spec)
    return json.loads((spec.folder / "result.json").read_text())


def _events(story: dict[str, Any]) -> list[dict[str, Any]]:
    return [story[name] for name in sorted(name for name in story if name.startswith("query"))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"query": "random", "selection": "random", "pretrain": "none"},
        {"selection": "edge", "quota": "total", "query_base": "initial", "pretrain": "ce"},
        {"difficulty": "training", "smoothing": "laplace", "anchor_profile": "power"},
        {"query_resets_patience": "false", "query_fraction": 1.0, "resample": "balanced"},
    ],
    ids=str,
)
def test_story_of_a_trial(
    options: dict[str, Any], make_spec: Any, tiny_dataset: SplitDataset, stuck: Protocol, monkeypatch: Any
) -> None:
    spec, drawn, draw = make_spec("flex", protocol=stuck, **EAGER, **options), [], FlexibleSampling._balanced

    def balanced(method: FlexibleSampling, pool: Any, *rest: Any) -> np.ndarray:
        positions = draw(method, pool, *rest)
        drawn.append(np.asarray(pool.labels)[positions])
        return positions

    monkeypatch.setattr(FlexibleSampling, "_balanced", balanced)
    result = _run(spec)
    assert bool(drawn) == ("resample" in options)
    assert not drawn or np.bincount(np.concatenate(drawn)).max() < 0.2 * len(np.concatenate(drawn))
    labels, counts = tiny_dataset.manifest.part("train")[1], np.array(result["class_counts"])
    training = result["story"]["anchors"]["indices"]
    expected = anchor_counts(counts, 0.1, spec.hyperparameters["anchor_profile"])
    assert np.bincount(labels[training], minlength=8).tolist() == expected.tolist()
    assert result["story"]["anchors"]["counts"] == expected.tolist()
    edges = np.array(result["story"]["anchors"]["edges"])
    assert labels[edges].tolist() == np.repeat(np.arange(8), np.minimum(counts, 4)).tolist()
    events, left = _events(result["story"]), counts - expected
    taught = result["story"].get("pretraining", {"accuracy": 1.0, "initial": 0.0, "chance": 0.125})
    assert taught.keys() >= {"accuracy", "initial", "chance"}
    assert ("warning" in taught) >= (taught["accuracy"] <= max(taught["initial"], taught["chance"]))
    assert events
    for event in events:
        if not options:
            assert event["quotas"] == query_quotas(np.array(event["accuracy"]), left, 0.1).tolist()
        left = np.array(event["pool_left"])
        before = np.setdiff1d(np.arange(len(labels)), training)
        assert sum(event["difficulty"]) == pytest.approx(8)
        assert event["difficulty"] == pytest.approx(class_difficulty(np.array(event["accuracy"])).tolist())
        training = training + event["queried"]
        pool = np.setdiff1d(np.arange(len(labels)), training)
        assert len(set(training)) == len(training) and len(training) + len(pool) == len(labels)
        assert set(event["queried"]) <= set(before.tolist()) and set(event["lowest"]) <= set(before.tolist())
        shown = np.minimum(np.bincount(labels[before], minlength=8), 4)
        assert labels[event["lowest"]].tolist() == np.repeat(np.arange(8), shown).tolist()
        assert len(event["lowest_information"]) == len(event["lowest"])
        assert np.bincount(labels[event["queried"]], minlength=8).tolist() == event["quotas"]
        assert np.bincount(labels[pool], minlength=8).tolist() == event["pool_left"]
    stages = [stage for stage in result["cost"]["stages"] if stage["name"] != "pretrain"]
    assert [stage["name"] for stage in stages] == ["anchors", *(f"query{n + 1}" for n in range(len(events)))]
    assert sum(stage["epochs"] for stage in stages) <= spec.protocol.epochs


def test_anchors_are_the_nearest_to_their_prototype(
    make_spec: Any, tiny_dataset: SplitDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    compute = FlexibleSampling._anchors

    def recorded(method: FlexibleSampling, run: Run) -> Any:
        seen.append(run.features())
        return compute(method, run)

    monkeypatch.setattr(FlexibleSampling, "_anchors", recorded)
    story = _run(make_spec("flex"))["story"]
    (features,), labels = seen, tiny_dataset.manifest.part("train")[1]
    prototypes = class_prototypes(features, labels, 8)
    distance = np.linalg.norm(features - prototypes[labels], axis=1)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[story["anchors"]["indices"]] = True
    edges = np.array(story["anchors"]["edges"])
    for label in range(8):
        inside, outside = distance[chosen & (labels == label)], distance[~chosen & (labels == label)]
        assert inside.size and (not outside.size or inside.max() <= outside.min())
        farthest = np.sort(distance[labels == label])[::-1][:4]
        np.testing.assert_array_equal(distance[edges[labels[edges] == label]], farthest)


def test_a_query_takes_the_most_informative_and_keeps_the_least(
    make_spec: Any, tiny_dataset: SplitDataset, stuck: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    compute = FlexibleSampling._information

    def recorded(method: FlexibleSampling, run: Run, name: str, pool: np.ndarray) -> np.ndarray:
        seen.append((pool, compute(method, run, name, pool)))
        return seen[-1][1]

    monkeypatch.setattr(FlexibleSampling, "_information", recorded)
    events = _events(_run(make_spec("flex", protocol=replace(stuck, epochs=3), pretrain="none", **EAGER))["story"])
    labels = tiny_dataset.manifest.part("train")[1]
    assert len(events) == len(seen) > 0
    for event, (pool, information) in zip(events, seen, strict=True):
        ranked = pool[np.argsort(information, kind="stable")]
        for label in range(8):
            least = ranked[labels[ranked] == label]
            assert [row for row in event["lowest"] if labels[row] == label] == least[:4].tolist()
            taken = [row for row in event["queried"] if labels[row] == label]
            assert taken == least[::-1][: event["quotas"][label]].tolist()
        score = dict(zip(pool.tolist(), information.tolist(), strict=True))
        assert event["information"] == [score[row] for row in event["queried"]]


def test_every_stage_starts_with_a_fresh_optimizer_at_the_protocols_rate(
    make_spec: Any, stuck: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, float]] = []
    finished: list[torch.optim.Optimizer] = []

    plain = Method.optimizer

    def recorded(method: Method, groups: Any, stage: Stage) -> torch.optim.Optimizer:
        optimizer = plain(method, groups, stage)
        started.append((len(optimizer.state), optimizer.param_groups[0]["lr"]))
        finished.append(optimizer)
        return optimizer

    monkeypatch.setattr(Method, "optimizer", recorded)
    result = _run(spec := make_spec("flex", protocol=stuck, **EAGER))
    assert len(started) == len(result["cost"]["stages"]) > 2
    assert all(moments == 0 for moments, _ in started)
    assert all(lr == spec.protocol.lr for _, lr in started[1:])
    assert started[0][1] == spec.hyperparameters["ssl_lr"]
    assert all(optimizer.state for optimizer in finished)


def test_scoring_leaves_buffers_modes_and_generators_alone(tiny_dataset: SplitDataset, make_spec: Any) -> None:
    spec = make_spec("flex")
    counts = np.array(spec.data.class_counts)
    config = FlexibleSampling.Config(**spec.hyperparameters)
    method = build_method(FlexibleSampling, config, spec.protocol, counts, seed=0)
    part = tiny_dataset.part("train")
    transform = BatchTransform(16, spec.protocol.augmentation, compute_dtype("fp32"))
    method.train()
    method.predict(transform.evaluate(part.gather(np.arange(16))))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    modes = [module.training for module in method.modules()]
    state = torch.get_rng_state()
    inference = Inference(method, spec.protocol, torch.device("cpu"))
    pool = np.arange(40)

    def probabilities(seed: int) -> np.ndarray:
        return inference.mc_scores(part, pool, 5, seed, lambda batch: batch.swapaxes(0, 1)).swapaxes(0, 1)

    first = probabilities(1)
    assert first.shape == (5, 40, 8) and first.dtype == np.float64
    assert first.sum(axis=2) == pytest.approx(1.0)
    assert first.std(axis=0).max() > 0
    assert np.array_equal(first, probabilities(1))
    assert not np.array_equal(first, probabilities(2))
    information = inference.mc_scores(part, pool, 5, 1, mutual_information)
    assert np.array_equal(information, mutual_information(np.ascontiguousarray(probabilities(1))))
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    assert modes == [module.training for module in method.modules()]
    assert torch.equal(state, torch.get_rng_state())


def test_self_supervised_loss_falls(make_spec: Any) -> None:
    spec = make_spec("flex", ssl_budget=3.0, ssl_batch_size=16)
    run_trial(spec)
    rows = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["terms"]["loss"] for row in rows if row["stage"] == "pretrain"]
    assert len(losses) == 18
    assert np.mean(losses[-3:]) < np.mean(losses[1:4]) - 0.1


def test_ratios_that_the_anchor_scale_would_turn_over_are_refused(make_spec: Any) -> None:
    with pytest.raises(UserError, match=r"flex at ratio 20: .*use a scale of at least 0\.05"):
        make_spec("flex", anchor_scale=0.01)
    counts = pareto_class_counts(8, 800, 10)
    assert counts.max() * 0.1 < counts.min()
    FlexibleSampling.check(FlexibleSampling.Config(), counts)
    with pytest.raises(ValueError, match="use a scale"):
        FlexibleSampling.check(FlexibleSampling.Config(), pareto_class_counts(8, 800, 5))


def test_readings_of_an_archive_with_few_validation_images() -> None:
    archive, lesions = (configure("flex", FlexibleSampling.Config, name, {}) for name in ("paper_archive", "paper"))
    assert (archive.anchor_profile, archive.difficulty) == ("power", "training")
    assert (lesions.anchor_profile, lesions.difficulty) == ("pareto", "validation")


def test_a_class_without_validation_images_is_the_hardest_with_smoothing_too() -> None:
    counts, recall = np.array([50, 2, 0]), np.array([0.9, 1.0, np.nan])
    flex = method_on_colour("flex", np.array([9, 9, 9]), smoothing="laplace")
    found = flex._accuracy(SimpleNamespace(val_class_counts=counts), SimpleNamespace(val_recall=recall))
    np.testing.assert_allclose(found, [46 / 52, 3 / 4, np.nan])
    np.testing.assert_allclose(class_difficulty(found) / class_difficulty(found)[2], [6 / 52, 1 / 4, 1])


@pytest.mark.parametrize(("accuracy", "warned"), [(0.09, True), (0.12, True), (0.123, False)])
def test_chance_is_judged_by_the_images_of_each_class(accuracy: float, warned: bool, monkeypatch: Any) -> None:
    counts = np.array([1288, 452, 339, 147, 87, 65, 39, 27, 25, 24, 3, 3, 2, 2])
    flex = method_on_colour("flex", np.full(14, 9))
    monkeypatch.setattr(FlexibleSampling, "_nearest_mean", lambda *_: {"accuracy": accuracy})
    run = SimpleNamespace(val_class_counts=counts, class_counts=np.full(14, 9))
    assert ("warning" in flex._taught(run, None)) is warned


def _reports(scores: list[float], recall: list[float] | None = None) -> list[EpochReport]:
    fixed = [EpochReport("s", epoch, {}, 1, 1, 0.0, (score, score)) for epoch, score in enumerate(scores)]
    if recall is not None:
        fixed[-1] = EpochReport("s", len(scores) - 1, {}, 1, 1, 0.0, tuple(recall))
    return fixed


def _rule(pool: list[int], warmup: int = 0, best: float = -np.inf, carried: int | None = None) -> QueryRule:
    return QueryRule(2, Plateau(4, warmup, best), carried, np.array(pool), True)


@pytest.mark.parametrize(
    ("rule", "scores", "ends", "queries"),
    [
        (_rule([5, 5]), [0.1, 0.2, 0.2], False, False),
        (_rule([5, 5]), [0.1, 0.2, 0.2, 0.1], True, True),
        (_rule([5, 5]), [0.1, 0.2, 0.1, 0.3], False, False),
        (_rule([5, 5], warmup=4), [0.2, 0.1, 0.1, 0.1, 0.1], False, False),
        (_rule([5, 5], warmup=4), [0.2, 0.1, 0.1, 0.1, 0.1, 0.1], True, True),
        (_rule([5, 5], best=0.5), [0.3, 0.4], True, True),
        (_rule([0, 0]), [0.2, 0.1, 0.1, 0.1], False, False),
        (_rule([0, 0]), [0.2, 0.1, 0.1, 0.1, 0.1], True, False),
        (_rule([0, 0], best=0.5, carried=3), [0.1], True, False),
        (_rule([0, 0], best=0.5, carried=3), [0.6, 0.1, 0.1], False, False),
        (_rule([5, 5], best=0.5, carried=0), [0.1, 0.1], True, True),
        (_rule([5, 5], best=0.5, carried=2), [0.1, 0.1], True, False),
    ],
)
def test_when_a_stage_ends(rule: QueryRule, scores: list[float], ends: bool, queries: bool) -> None:
    assert rule(_reports(scores)) is ends
    assert rule.wants_query(_reports(scores)) is queries


def test_no_query_where_every_class_with_a_pool_is_perfect() -> None:
    rule = _rule([5, 0])
    assert not rule.wants_query(_reports([0.9, 0.1, 0.1], recall=[1.0, 0.2]))
    assert rule.wants_query(_reports([0.9, 0.1, 0.1], recall=[0.2, 1.0]))
    assert rule.wants_query(_reports([1.0, 1.0, 1.0]))


def test_a_query_that_finds_nothing_is_followed_by_early_stopping(
    make_spec: Any, stuck: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlexibleSampling, "_accuracy", lambda *_: np.array([0.0] + [1.0] * 7))
    monkeypatch.setattr("ltbench.methods.flex.query_quotas", lambda *_, **__: np.zeros(8, dtype=np.int64))
    result = _run(make_spec("flex", protocol=replace(stuck, epochs=12), **EAGER))
    stages = {stage["name"]: stage["epochs"] for stage in result["cost"]["stages"]}
    assert list(stages) == ["pretrain", "anchors", "query1"]
    assert stages["query1"] == stuck.patience
    assert result["story"]["query1"]["queried"] == []


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_smallest_budgets(epochs: int, make_spec: Any, tiny_protocol: Protocol) -> None:
    assert _run(make_spec("flex", protocol=replace(tiny_protocol, epochs=epochs)))["method"] == "flex"
