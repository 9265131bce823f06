"""Plug-ins, one file each, against the contract: what methods to come need is there."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ltbench import methods
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.errors import UserError
from ltbench.methods.checks import check_method, neutral_setting
from ltbench.registry import load_plugin

FOLDER = Path(__file__).parent


def plugin(name: str) -> type[methods.Method]:
    load_plugin(FOLDER / f"{name}.py")
    return methods.registry.get(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugins")


@pytest.mark.parametrize("name", ["three_experts", "two_streams", "sharpness_aware", "temperature"])
def test_plugins_hold_to_the_contract(name: str, folder: Path) -> None:
    check_method(plugin(name), folder=folder)


def test_a_plugin_for_transformers(folder: Path) -> None:
    method = plugin("bias_only")
    check_method(method, backbone="test_vit", image_size=32, folder=folder)
    with pytest.raises(UserError, match="bias_only needs a transformer"):
        check_method(method)


def run(make_spec: Any, name: str, **options: Any) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """Run a trial of a plug-in; return its method class's spec, its result and its epochs."""
    plugin(name)
    spec = make_spec(name, plugins=[FOLDER / f"{name}.py"], **options)
    run_trial(spec)
    result = json.loads((spec.folder / "result.json").read_text())
    return spec, result, [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_plugin_that_changed_after_the_plan_is_refused(make_spec: Any) -> None:
    plugin("temperature")
    spec = make_spec("temperature", plugins=[FOLDER / "temperature.py"])
    with pytest.raises(UserError, match="changed"):
        run_trial(replace(spec, plugin="0" * 64))
    assert not (spec.folder / "config.json").exists()


def test_every_pass_and_every_image_is_counted(make_spec: Any, tiny_protocol: Any) -> None:
    images = sum(make_spec().data.class_counts)
    for name, seen, passes in (("three_experts", 1, 3), ("two_streams", 2, 2), ("sharpness_aware", 1, 2)):
        spec, result, epochs = run(make_spec, name, protocol=replace(tiny_protocol, epochs=2))
        (stage,) = result["cost"]["stages"]
        trained = stage["steps"] * spec.protocol.batch_size
        assert images * len(epochs) * seen - len(epochs) * 2 <= stage["images"] <= trained * seen
        validated = 32 * len(epochs) * (3 if name == "three_experts" else 1)
        assert stage["forward_images"] == stage["images"] // seen * passes + validated


def _built(name: str, protocol: Any, counts: np.ndarray, seed: int) -> Any:
    method = methods.registry.get(name)
    return build_method(method, method.Config(), protocol, counts, seed)


def test_experts_begin_apart_and_only_biases_move(make_spec: Any, tiny_protocol: Any) -> None:
    plugin("three_experts")
    experts = _built("three_experts", tiny_protocol, np.array([5, 4, 3]), 0)
    first = [network.conv1[0].weight for network in (experts.backbone, *experts.others)]
    assert not (first[0] == first[1]).any() and not (first[1] == first[2]).any()
    plain = _built("ce", tiny_protocol, np.array([5, 4, 3]), 0)
    assert (plain.backbone.conv1[0].weight == first[0]).all()

    plugin("bias_only")
    protocol = replace(tiny_protocol, backbone="test_vit", image_size=16, epochs=1)
    spec, _, _ = run(make_spec, "bias_only", protocol=protocol)
    before = _built("bias_only", protocol, np.array(spec.data.class_counts), protocol.seed).state_dict()
    after = torch.load(spec.folder / "model.pt", weights_only=True)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(name.endswith(".bias") or ".norm" in name or name.startswith("head.") for name in moved)


def test_without_its_radius_sharpness_awareness_is_plain_training(make_spec: Any, numbers_of: Any) -> None:
    plugin("sharpness_aware")
    assert neutral_setting("sharpness_aware") == {"radius": "0"}
    spec, _, _ = run(make_spec, "sharpness_aware", radius=0)
    plain = make_spec("ce")
    run_trial(plain)
    assert numbers_of(spec)["predictions"] == numbers_of(plain)["predictions"]


def test_the_temperature_comes_from_validation(make_spec: Any) -> None:
    spec, result, _ = run(make_spec, "temperature")
    with np.load(spec.folder / "predictions.npz") as arrays:
        logits, labels = arrays["val_logits"], arrays["val_labels"]
    module = sys.modules[plugin("temperature").__module__]
    chosen = float(torch.load(spec.folder / "model.pt", weights_only=True)["temperature"])
    assert chosen != 1 and module.fitted_temperature(logits * chosen, labels) == pytest.approx(chosen, rel=1e-3)
    assert result["selection"]["stage"] == "scaled" and "validation1" not in result["story"]
