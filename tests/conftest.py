"""What several test files share: a small split of the synthetic dataset, and trials on it that take a second."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ltbench import methods
from ltbench.benchmarks.training.planning.configured import configure_methods
from ltbench.benchmarks.training.planning.plan import Plan
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.datasets.loading import SplitDataset, load

SpecMaker = Callable[..., TrialSpec]


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections: statsmodels asks for one at every adjustment of p-values."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Use one thread here; in processes that tests start, threads that wait do not keep a core busy."""
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> SplitDataset:
    """Eight classes, 60 to 3 training images of 16 pixels, decoded."""
    cache = tmp_path_factory.mktemp("images")
    dataset = load(
        "synthetic", ratio=20, image_size=16, n_max=60, val_per_class=4, test_per_class=5, seed=3, cache=cache
    )
    dataset.store()
    return dataset


@pytest.fixture(scope="session")
def tiny_protocol() -> Protocol:
    return protocol_for("quick", image_size=16, epochs=6, patience=4, batch_size=16, precision="fp32", seed=5)


@pytest.fixture(scope="session")
def spec_under(tiny_dataset: SplitDataset, tiny_protocol: Protocol) -> SpecMaker:
    """Return a function that lays out one trial of a method: folder of the results, name, hyper-parameters."""

    def make(
        out: Path,
        method: str = "ce",
        *,
        trial: int = 0,
        protocol: Protocol = tiny_protocol,
        plugins: Sequence[Path] = (),
        checkpoint_seconds: float = 0.0,
        **hyperparameters: Any,
    ) -> TrialSpec:
        how = {"plugins": plugins, "checkpoint_seconds": checkpoint_seconds, "out": out}
        request = Request([method], trials=[trial], hyperparameters=hyperparameters, **how)
        configured = configure_methods(request.methods, hyperparameters, protocol, [tiny_dataset])
        planned = Plan(request, [tiny_dataset], configured, protocol, torch.device("cpu"), slots=["cpu"], threads=1)
        manifest = tiny_dataset.manifest
        (spec,) = planned.specs({manifest.digest: tiny_dataset.store().digest(manifest.ids)})
        spec.folder.mkdir(parents=True, exist_ok=True)
        manifest.write(spec.folder.parent / "split.csv")
        return spec

    return make


@pytest.fixture
def make_spec(spec_under: SpecMaker, tmp_path: Path) -> SpecMaker:
    """Return a function that lays out one trial of a method: name, hyper-parameters, folder of the results."""

    def make(method: str = "ce", *, out: Path = tmp_path / "results", **others: Any) -> TrialSpec:
        return spec_under(out, method, **others)

    return make


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[TrialSpec], Mapping[str, Any]]:
    """Return a function that reads all that a finished trial's numbers are, without times and library versions."""

    def read(spec: TrialSpec) -> Mapping[str, Any]:
        result = json.loads((spec.folder / "result.json").read_text())
        rows = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
        with np.load(spec.folder / "predictions.npz", allow_pickle=False) as arrays:
            predictions = {name: arrays[name].tobytes() for name in arrays.files}
        kept = ("selection", "val", "test", "story", "seed", "protocol_digest", "split_digest")
        return {
            **{name: result[name] for name in kept},
            "predictions": predictions,
            "epochs": [
                {name: value for name, value in row.items() if name not in ("seconds", "cpu_seconds")} for row in rows
            ],
            "steps": [(stage["name"], stage["epochs"], stage["steps"]) for stage in result["cost"]["stages"]],
        }

    return read


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, type], None]:
    """Register a method for one test."""

    def enter(name: str, method: type) -> None:
        method.name = name
        monkeypatch.setitem(methods.registry._entries, name, method)
        monkeypatch.setitem(methods.registry._plugins, name, Path(name))

    return enter


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    """Take plug-ins out again that a test has loaded."""
    modules = set(sys.modules)
    yield
    for module in [name for name in sys.modules if name.startswith("ltbench_plugin_") and name not in modules]:
        del sys.modules[module]


@pytest.fixture
def refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Callable[[list[str]], int], list[str], str], None]:
    """Return a function that checks that a command refuses its arguments: code 2, one line, nothing written."""
    monkeypatch.chdir(tmp_path)

    def check(main: Callable[[list[str]], int], arguments: list[str], reason: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and reason in line
        assert sorted(tmp_path.rglob("*")) == before

    return check
