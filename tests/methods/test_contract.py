"""Every registered method: against the contract, its own numbers of before, and plain cross-entropy where neutral."""

import hashlib
import json
import platform
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer

import ltbench
from ltbench import methods
from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.analysis.records import Record
from ltbench.benchmarks.plots.images import find_store
from ltbench.benchmarks.serving.model import TrialModel
from ltbench.benchmarks.serving.portable import Portable
from ltbench.benchmarks.training.trial import run_trial
from ltbench.errors import UserError
from ltbench.methods import Batch, Method, Progress, Run, Stage, StageResult
from ltbench.methods.checks import check_method, neutral_setting

BUILTIN = methods.available()
NEUTRAL = [name for name in BUILTIN if neutral_setting(name) is not None]
KEPT = json.loads((Path(__file__).parents[1] / "fixtures" / "predictions.json").read_text(encoding="utf-8"))
DIGESTS = KEPT["test_and_validation_logits_sha256"]
HERE = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "machine": platform.machine()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all trials of this file are, so that images are drawn once."""
    return tmp_path_factory.mktemp("contract")


@pytest.mark.parametrize("name", BUILTIN)
def test_every_method_holds_to_the_contract(name: str, folder: Path) -> None:
    check_method(methods.registry.get(name), folder=folder)
    (trial,) = folder.glob(f"*/{name}-*/trial0")
    result = Record.read(trial).result
    one_pass = -(-sum(result.data.class_counts) // result.protocol["batch_size"])
    rows = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    assert all(row["steps"] <= one_pass for row in rows if row["stage"] != "pretrain")
    if KEPT["machine"] == HERE:  # digests of another torch or processor say nothing here
        arrays = read_predictions(trial / "predictions.npz")
        logits = b"".join(arrays[f"{part}_logits"].tobytes() for part in ("val", "test"))
        assert hashlib.sha256(logits).hexdigest() == DIGESTS[name]
    scores_as_recorded(ltbench.load_model(trial), folder)


def scores_as_recorded(model: TrialModel, results: Path) -> None:
    """Check that a loaded network scores the test images as its trial did, and so does what is exported of it."""
    ids, _, recorded = model.record.test_predictions()
    store: Any = find_store(model.record, model.record.manifest(), results)
    pixels = torch.from_numpy(store.pixels[store.rows(ids)])
    with torch.no_grad():
        scored = torch.cat([model.scores(batch) for batch in pixels.split(model.protocol.batch_size)])
        exported = Portable(model).eval()(pixels[:7].float() / 255)[0]
    assert (scored.numpy() == recorded).all() and not model.training
    np.testing.assert_allclose(exported.numpy(), recorded[:7], atol=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _numbered(self: Any, batch: Batch, progress: Progress) -> dict[str, Any]:
    return {"loss": (self.predict(batch.images) * self.number).square().mean()}


def _build(self: Any) -> None:
    Method.build(self)
    self.register_buffer("number", torch.arange(self.task.num_classes))


def _counted(self: Any, batch: Batch, progress: Progress) -> dict[str, Any]:
    self.seen = getattr(self, "seen", 0) + 1
    return {**Method.loss(self, batch, progress), "seen": self.seen}


def _first(self: Any, run: Run) -> Generator[Stage, StageResult, None]:
    yield Stage("plain", 1)
    yield Stage("first", 1, indices=np.flatnonzero(run.labels == 0))


@pytest.mark.parametrize(
    ("hooks", "what"),
    [
        ({"build": _build, "loss": _numbered}, "order of the classes"),
        ({"stages": _first}, "indices.*order of"),
        ({"sampler": lambda self, pool, *_: np.flatnonzero(pool.labels == pool.labels.min())}, "sampler.*order of"),
        ({"predict": lambda *_: None}, "predict.*None.*float"),
        ({"loss": lambda *_: 1 / 0}, r"ZeroDivisionError.*test_contract"),
        ({"loss": _counted}, "epoch reports"),
    ],
)
def test_what_breaks_the_contract_is_one_line(hooks: Any, what: str, registered: Any, folder: Path) -> None:
    method: Any = type("Odd", (Method,), {**hooks, "__module__": __name__})
    with pytest.raises(AssertionError, match="not registered"):
        check_method(method, folder=folder)
    registered("odd", method)
    with pytest.raises(AssertionError, match=f"^odd.*{what}"):
        check_method(method, folder=folder)


def logits_of(spec: Any) -> bytes:
    run_trial(spec)
    return read_predictions(spec.folder / "predictions.npz")["test_logits"].tobytes()


@pytest.fixture(scope="module")
def plain_logits(spec_under: Any, tiny_protocol: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return logits_of(spec_under(tmp_path_factory.mktemp("plain"), "ce", protocol=replace(tiny_protocol, epochs=3)))


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_neutral_method_is_plain_cross_entropy_to_the_bit(
    name: str, make_spec: Any, tiny_protocol: Any, plain_logits: bytes
) -> None:
    spec = make_spec(name, protocol=replace(tiny_protocol, epochs=3), **(neutral_setting(name) or {}))
    assert logits_of(spec) == plain_logits


default_cfgs = generate_default_cfgs({"small_swin.untrained": {"input_size": (3, 224, 224), "fixed_input_size": True}})


@register_model
def small_swin(pretrained: bool = False, **options: Any) -> SwinTransformer:
    options = {name: options[name] for name in ("img_size", "num_classes")}
    return SwinTransformer(**options, patch_size=4, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2))


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext", "small_swin"])
def test_transformers_and_convnexts_train(backbone: str) -> None:
    check_method(methods.registry.get("ce"), backbone=backbone, image_size=32)


@pytest.mark.parametrize("name", ["elf", "oltr"])
def test_methods_that_look_into_stages_refuse_a_transformer_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*backbone"):
        check_method(methods.registry.get(name), backbone="test_vit", image_size=32)
