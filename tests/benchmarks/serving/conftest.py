"""Trials of a second, whose networks are then used."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.trial import run_trial

Trained = Callable[..., Path]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all trials of these tests, so that images and shared stages are made once."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def trained(results: Path, spec_under: Any, tiny_protocol: Protocol) -> Trained:
    """Return a function that trains a method for an epoch and returns the trial's folder."""

    def train(method: str = "ce", *, changes: Mapping[str, Any] = MappingProxyType({}), **options: Any) -> Path:
        spec = spec_under(results, method, protocol=replace(tiny_protocol, epochs=1, **changes), **options)
        run_trial(spec)
        return spec.folder

    return train
