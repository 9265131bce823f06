"""What every method must hold to, as checks that a plug-in's author runs in one line.

    from ltbench.methods.checks import check_method

    def test_mine():
        check_method(Mine)

It stands above the suite: it runs trials, and nothing imports it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltbench.benchmarks.analysis.record_files.predictions import read_predictions
from ltbench.benchmarks.executors.failures import plugin_line
from ltbench.benchmarks.training.planning.plan import plan, prepare
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.stages.permutation import (
    PLACE,
    check_permutation,
    images_of,
    move,
    tensor_pairs,
    terms_of,
)
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.errors import UserError
from ltbench.files import read_tensors
from ltbench.methods import configure, registry
from ltbench.methods.base import Method
from ltbench.methods.contract import Contract, ContractError
from ltbench.methods.stages import EpochReport

_COUNTS = np.array([3, 41, 1, 12, 20, 5, 7])  # not in order of frequency, a class of one image; no width is 7
_BATCH = 14
_SHORT: dict[str, Any] = {"epochs": 3, "patience": 3, "batch_size": 16, "precision": "fp32"}


class _Killed(BaseException):
    """Stands for a process that ends after an epoch."""


class _WatchingDisplay:
    """Shows nothing, keeps the state of every epoch, and ends the process after one that it has not seen.

    Parameters
    ----------
    spec : of the trial
    kills : whether it ends the process
    """

    def __init__(self, spec: TrialSpec, *, kills: bool) -> None:
        self.states: dict[tuple[str, int], Any] = {}
        self._checkpoint, self._kills = spec.folder / "journal" / "checkpoint.pt", kills

    def stage(self, name: str, epochs: int, done: int) -> None:
        """Begin a stage."""

    def epoch(self, report: EpochReport) -> None:
        """Keep the weights that the epoch ended with."""
        self.states[report.stage, report.epoch] = read_tensors(self._checkpoint)["tensors"]
        if self._kills:
            raise _Killed

    def line(self, text: str) -> None:
        """Say nothing."""


def check_method(
    method: type[Method],
    *,
    backbone: str = "test_resnet",
    image_size: int = 16,
    folder: Path | None = None,
    **hyperparameters: Any,
) -> None:
    """Check a method against the contract: it builds, predicts, trains, and resumes to the bit.

    Checked on made-up images of 7 classes that are not in order of frequency: logits [B, K] in single precision, also
    under autocast; a loss and gradients that are finite for batches without most classes; that nothing but the names
    change when class ids are permuted, neither loss and logits nor the stages, what they draw from and what they do.
    Then on the synthetic dataset, one class with a single training image: two trials, of which one is killed after
    every epoch, give equal epochs, weights and predictions.

    Parameters
    ----------
    method : registered
    backbone, image_size : a timm model that the method can use, and pixels that it takes
    folder : of the images and the trials; None: one that is deleted
    hyperparameters : other values than the defaults

    Raises
    ------
    AssertionError : what does not hold, in one line: a hook that returns what it must not, or that raises
    UserError : what the method refuses by itself
    """
    if registry.modules(getattr(method, "name", "")) and registry.get(method.name) is not method:
        raise AssertionError(f"{method.__name__} is not the method registered as {method.name!r}; rename one")
    if "name" not in vars(method):
        raise AssertionError(f'{method.__name__} is not registered; decorate it with @register("NAME")')
    protocol = protocol_for("quick", backbone=backbone, image_size=image_size, **_SHORT)
    with _in_one_line(method), tempfile.TemporaryDirectory() as temporary:
        _check_predictions(_built(method, protocol, _COUNTS, hyperparameters))
        _check_losses(_built(method, protocol, _COUNTS, hyperparameters))
        check_permutation(*_permuted(method, protocol, hyperparameters), protocol, Path(temporary))
        _check_trials(method, protocol, hyperparameters, folder or Path(temporary))


@contextmanager
def _in_one_line(method: type[Method]) -> Iterator[None]:
    """Turn whatever a method raises or breaks into an `AssertionError` of one line."""
    try:
        yield
    except ContractError as error:
        raise AssertionError(str(error)) from error
    except UserError:
        raise
    except Exception as error:  # a plug-in may fail in any way
        where = plugin_line(method.name, error)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise AssertionError(f"{method.name}: {reason}" + (f" (at {where})" if where else "")) from error


def _built(method: type[Method], protocol: Protocol, counts: np.ndarray, hyperparameters: dict[str, Any]) -> Method:
    names = [f"class {label}" for label in range(len(counts))]
    backbones = Backbones(protocol, protocol.seed)
    config = configure(method.name, method.Config, protocol.preset, hyperparameters)
    return build_method(method, config, protocol, counts, protocol.seed, class_names=names, backbones=backbones)


def _require(holds: bool, method: Method | type[Method], what: str) -> None:
    if not holds:
        raise ContractError(f"{method.name}: {what}")


def _check_predictions(method: Method) -> None:
    method.eval()
    images = images_of(method, 3)
    contract = Contract.of(method)
    with torch.no_grad():
        if type(method).predict is Method.predict:
            contract.features(method.features(images), 3)
        logits = contract.logits("predict", method.predict(images), 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = contract.logits("predict", method.predict(images.bfloat16()), 3)
        inspected, _ = contract.inspected(method.inspect(images), 3)
    for values, where in ((logits, ""), (half, " under autocast")):
        _require(values.dtype == torch.float32, method, f"predict gives {values.dtype}{where}, not float32")
        _require(bool(values.isfinite().all()), method, f"predict gives logits that are not finite{where}")
    _require(torch.equal(inspected, logits), method, "inspect gives other logits than predict")


def _check_losses(method: Method) -> None:
    method.train()
    for targets in (torch.zeros(_BATCH, dtype=torch.int64), torch.tensor([2, 1])):
        terms = terms_of(method, targets)
        for name, value in terms.items():
            _require(
                bool(torch.isfinite(torch.as_tensor(value)).all()),
                method,
                f"{name} of a batch without most classes is {value}",
            )
        method.zero_grad()
        terms["loss"].backward()
        wrong = [
            name
            for name, each in method.named_parameters()
            if each.grad is not None and not bool(each.grad.isfinite().all())
        ]
        _require(not wrong, method, f"gradients of {', '.join(wrong)} are not finite for a batch without most classes")


def _permuted(
    method: type[Method], protocol: Protocol, hyperparameters: dict[str, Any]
) -> tuple[Method, Method, set[str]]:
    """Return a method, one of permuted classes whose random weights are permuted too, and the names of these."""
    place = PLACE.numpy()
    counts = np.empty_like(_COUNTS)
    counts[place] = _COUNTS
    first, second = (_built(method, protocol, each, hyperparameters) for each in (_COUNTS, counts))
    other = _built(method, replace(protocol, seed=protocol.seed + 1), _COUNTS, hyperparameters)
    random = {name for name, (one, changed) in tensor_pairs(first, other).items() if not torch.equal(one, changed)}
    move(first, second, random)
    return first, second, random


def _check_trials(method: type[Method], protocol: Protocol, hyperparameters: dict[str, Any], folder: Path) -> None:
    changes = {name: getattr(protocol, name) for name in ("backbone", "image_size", *_SHORT)}
    request = Request(
        [method.name],
        ratios=[60],
        trials=[0],
        hyperparameters=hyperparameters,
        dataset="synthetic",
        preset=protocol.preset,
        protocol=changes,
        n_max=60,
        val_per_class=4,
        test_per_class=5,
        device="cpu",
        checkpoint_seconds=0,
        out=folder,
    )
    (whole,) = prepare(plan(request))
    killed = replace(whole, folder=whole.folder.with_name("killed"), cache=whole.cache.with_name("killed"))
    watching, killing = _WatchingDisplay(whole, kills=False), _WatchingDisplay(killed, kills=True)
    run_trial(whole, display=watching)
    for _ in range(1000):
        try:
            run_trial(killed, display=killing)
            break
        except _Killed:
            continue
    one, other = (
        {**_recorded(spec), "weights": shown.states} for spec, shown in ((whole, watching), (killed, killing))
    )
    for name in one:
        reason = f"a trial that was killed after every epoch ends with other {name}"
        _require(_equal(one[name], other[name]), method, f"{reason}; all that it keeps must be in its state")


def _recorded(spec: TrialSpec) -> dict[str, Any]:
    """Return what a trial has recorded and what does not depend on the time that it took, by a name for messages."""
    rows = [json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    arrays = read_predictions(spec.folder / "predictions.npz")
    reports = [{name: value for name, value in row.items() if name not in ("seconds", "cpu_seconds")} for row in rows]
    return {**arrays, "epoch reports": reports, "reported weights": read_tensors(spec.folder / "model.pt")}


def _equal(one: Any, other: Any) -> bool:
    """Return whether two nested values are equal to the bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        one, other = (each.contiguous().reshape(-1).view(torch.uint8).numpy() for each in (one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


def neutral_setting(name: str) -> dict[str, str] | None:
    """Return the hyper-parameters at which a method is plain cross-entropy, as its docstring declares them.

    A line `Neutral: gamma=0` declares them, `Neutral: none, ...` says why there are none; None then.

    Parameters
    ----------
    name : registered

    Raises
    ------
    ValueError : the docstring has no such line
    """
    declared = registry.details(name).get("Neutral", "")
    if declared.startswith("none"):
        return None
    settings = dict(word.split("=", 1) for word in declared.split() if "=" in word)
    if not settings:
        advice = "add a line `Neutral: NAME=VALUE` or `Neutral: none, why`"
        raise ValueError(f"{name} declares no neutral setting; {advice}")
    return settings
