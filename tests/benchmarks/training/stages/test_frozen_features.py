"""Heads on features that were computed once: the same numbers as on images, for every method that needs no more."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ltbench import methods
from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.training.protocol import PRESETS, Protocol, protocol_for
from ltbench.benchmarks.training.stages import frozen_features
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.errors import UserError
from ltbench.files import read_tensors
from ltbench.methods.base import needed_of_backbone
from ltbench.methods.stages import EpochReport

NAMES = [name for name in methods.available() if needed_of_backbone(methods.registry.get(name)) == "features"]


@pytest.fixture
def probe(tiny_protocol: Protocol) -> Protocol:
    plain = tiny_protocol.augmentation.without_changes()
    return replace(tiny_protocol, tune="head", epochs=2, frozen_features=True, augmentation=plain)


def logits_of(spec: Any) -> np.ndarray:
    return read_predictions(spec.folder / "predictions.npz")["test_logits"]


@pytest.mark.parametrize("name", ["ce", "crt", "ncm", "lift"])
def test_numbers_are_those_of_the_same_images(name: str, make_spec: Any, probe: Protocol) -> None:
    cached, fresh = (make_spec(name, protocol=replace(probe, frozen_features=given)) for given in (True, False))
    for spec in (cached, fresh):
        run_trial(spec)
    np.testing.assert_allclose(logits_of(cached), logits_of(fresh), rtol=1e-3, atol=1e-3)


def test_every_method_that_says_so_trains_on_features_computed_once(make_spec: Any, probe: Protocol) -> None:
    assert len(NAMES) > 20
    costs = []
    for name in NAMES:
        spec = make_spec(name, protocol=probe)
        run_trial(spec)
        costs.append(Record.read(spec.folder).result.cost)
    images = sum(spec.data.class_counts) + 8 * 4  # training and validation, once
    assert {cost.forward_images for cost in costs} == {images}
    assert len(list(spec.cache.glob("*.json"))) >= 3


def test_the_recorded_weights_are_of_the_whole_network(make_spec: Any, probe: Protocol) -> None:
    spec = make_spec("ce", protocol=probe)
    run_trial(spec)
    cls, counts = methods.registry.get("ce"), np.array(spec.data.class_counts)
    method = build_method(cls, cls.Config(), probe, counts, spec.seed)
    method.load_state_dict(read_tensors(spec.folder / "model.pt"))
    bare = Backbones(probe, spec.seed).new().state_dict()
    assert all(torch.equal(value, bare[name]) for name, value in method.backbone.state_dict().items())
    cost = json.loads((spec.folder / "result.json").read_text())["cost"]
    assert cost["trained_parameters"] == sum(each.numel() for each in method.head.parameters())


class _Killed(BaseException):
    pass


class _Killing:
    def stage(self, name: str, epochs: int, done: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def epoch(self, report: EpochReport) -> None:
        raise _Killed


def test_a_killed_trial_goes_on_with_the_features_that_it_had(
    make_spec: Any, probe: Protocol, numbers_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = (make_spec("crt", out=tmp_path / out, protocol=probe) for out in ("whole", "killed"))
    run_trial(whole)
    with pytest.raises(_Killed):
        run_trial(killed, display=_Killing())
    computed = []
    features = frozen_features.FrozenBackbone._features
    monkeypatch.setattr(
        frozen_features.FrozenBackbone,
        "_features",
        lambda self, part: computed.append(len(part)) or features(self, part),
    )
    for _ in range(20):
        try:
            run_trial(killed, display=_Killing())
            break
        except _Killed:
            continue
    assert numbers_of(killed) == numbers_of(whole)
    assert computed == [40]  # the test images alone, at the end


def test_what_needs_images_is_refused(make_spec: Any, probe: Protocol, tiny_protocol: Protocol) -> None:
    for name in ("mixup", "flex", "bcl", "elf", "gcl"):
        with pytest.raises(UserError, match=name):
            make_spec(name, protocol=probe)
    for changes in ({"tune": "full"}, {"tune": "head", "tta": "five_crop"}, {"tune": "head", "init": "ce"}):
        with pytest.raises(UserError, match="--frozen-features needs --tune head"):
            replace(tiny_protocol, **{"frozen_features": True, **changes})

    class Further(methods.registry.get("ce")):  # type: ignore[misc]
        pass

    assert needed_of_backbone(Further) == "images"


def test_the_presets_of_pre_trained_networks() -> None:
    tuned, probe = PRESETS["finetune"], PRESETS["probe"]
    assert (tuned.tune, tuned.tune_rank, tuned.lr, tuned.schedule) == ("adaptformer", 8, 1e-3, "cosine")
    assert (probe.tune, probe.frozen_features, probe.augmentation.horizontal_flip) == ("head", True, 0.0)
    assert protocol_for("probe", weights="file:x.pth").frozen_features
