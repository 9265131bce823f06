"""What every method must hold to, as checks that a plug-in's author runs in one line.

    from ltbench.methods.checks import check_method

    def test_mine():
        check_method(Mine)

It stands above the suite: it runs trials, and nothing imports it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltbench.benchmarks.analysis.records import read_predictions
from ltbench.benchmarks.training.plan import plan, prepare
from ltbench.benchmarks.training.protocol import Protocol, protocol_for
from ltbench.benchmarks.training.request import Request
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.trial import build_method, run_trial
from ltbench.methods import configure
from ltbench.methods.base import Method
from ltbench.methods.stages import Batch, EpochReport, Progress

_COUNTS = np.array([3, 41, 1, 12, 20, 5, 7])  # not in order of frequency, a class of one image; no width is 7
_BATCH = 14
_SHORT: dict[str, Any] = {"epochs": 3, "patience": 3, "batch_size": 16, "precision": "fp32"}


class _Killed(BaseException):
    """Stands for a process that ends after an epoch."""


class _KillingDisplay:
    """Shows nothing, and ends the process after the first epoch that it is shown."""

    def stage(self, name: str, epochs: int, done: int) -> None:
        """Begin a stage."""

    def epoch(self, report: EpochReport) -> None:
        """End everything."""
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
    change when class ids are permuted. Then on the synthetic dataset, one class with a single training image: two
    trials, of which one is killed after every epoch, give equal predictions.

    Parameters
    ----------
    method : registered
    backbone, image_size : a timm model that the method can use, and pixels that it takes
    folder : of the images and the trials; None: one that is deleted
    hyperparameters : other values than the defaults

    Raises
    ------
    AssertionError : what does not hold, in one line
    UserError : what the method refuses by itself
    """
    protocol = protocol_for("quick", backbone=backbone, image_size=image_size, **_SHORT)
    _check_predictions(_built(method, protocol, _COUNTS, hyperparameters))
    _check_losses(_built(method, protocol, _COUNTS, hyperparameters))
    _check_permutation(method, protocol, hyperparameters)
    with tempfile.TemporaryDirectory() as temporary:
        _check_trials(method, protocol, hyperparameters, folder or Path(temporary))


def _built(method: type[Method], protocol: Protocol, counts: np.ndarray, hyperparameters: dict[str, Any]) -> Method:
    names = [f"class {label}" for label in range(len(counts))]
    backbones = Backbones(protocol, protocol.seed)
    config = configure(method.name, method.Config, protocol.preset, hyperparameters)
    return build_method(method, config, protocol, counts, protocol.seed, class_names=names, backbones=backbones)


def _images(method: Method, count: int) -> Tensor:
    size = method.task.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def _require(holds: bool, method: Method, what: str) -> None:
    if not holds:
        raise AssertionError(f"{method.name}: {what}")


def _check_predictions(method: Method) -> None:
    method.eval()
    images, classes = _images(method, 3), method.task.num_classes
    with torch.no_grad():
        logits = method.predict(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = method.predict(images.bfloat16())
        inspected, details = method.inspect(images)
    for values, where in ((logits, ""), (half, " under autocast")):
        _require(tuple(values.shape) == (3, classes), method, f"predict gives {list(values.shape)}, not [3, {classes}]")
        _require(values.dtype == torch.float32, method, f"predict gives {values.dtype}{where}, not float32")
        _require(bool(values.isfinite().all()), method, f"predict gives logits that are not finite{where}")
    _require(torch.equal(inspected, logits), method, "inspect gives other logits than predict")
    _require(
        all(len(each) == 3 for each in details.values()), method, "inspect gives details that are not one an image"
    )


def _check_losses(method: Method) -> None:
    method.train()
    for targets in (torch.zeros(_BATCH, dtype=torch.int64), torch.tensor([2, 1])):
        terms = _terms(method, targets)
        for name, value in terms.items():
            _require(bool(torch.isfinite(value).all()), method, f"{name} of a batch without most classes is {value}")
        method.zero_grad()
        terms["loss"].backward()
        wrong = [
            name
            for name, each in method.named_parameters()
            if each.grad is not None and not bool(each.grad.isfinite().all())
        ]
        _require(not wrong, method, f"gradients of {', '.join(wrong)} are not finite for a batch without most classes")


def _terms(method: Method, targets: Tensor) -> dict[str, Tensor]:
    """Return the logged terms of a batch in the first epoch, everything random alike in each call.

    The batch has more views than one and a partner, for methods whose stages ask for them.
    """
    torch.manual_seed(1)
    images, indices = _images(method, len(targets)), np.arange(len(targets))
    views = (images, images.flip(3), images.flip(2))
    partner = Batch(tuple(view.flip(0) for view in views), targets.flip(0), indices[::-1].copy())
    batch = method.transform(Batch(views, targets, indices, partner), np.random.default_rng(1))
    return dict(method.loss(batch, Progress(0, 2)))


def _check_permutation(method: type[Method], protocol: Protocol, hyperparameters: dict[str, Any]) -> None:
    """Check that a method whose class ids are permuted, weights too, has the same loss and permuted logits."""
    place = torch.tensor([4, 2, 6, 0, 3, 1, 5])  # where a class goes
    first = _built(method, protocol, _COUNTS, hyperparameters)
    counts = np.empty_like(_COUNTS)
    counts[place.numpy()] = _COUNTS
    second = _built(method, protocol, counts, hyperparameters)
    with torch.no_grad():
        for one, other in _tensor_pairs(first, second):
            moved = _moved(one, place)
            if isinstance(one, nn.Parameter) or torch.equal(one, other):  # a count, say, is what it should be already
                other.copy_(moved)
    targets = torch.arange(_BATCH) % len(counts)
    losses = [float(_terms(each, own)["loss"].detach()) for each, own in ((first, targets), (second, place[targets]))]
    message = f"the loss depends on the order of the classes: {losses[0]:.6g}, permuted {losses[1]:.6g}"
    _require(math.isclose(losses[0], losses[1], rel_tol=1e-4, abs_tol=1e-6), first, message)
    with torch.no_grad():
        logits, permuted = (each.eval().predict(_images(each, 3)) for each in (first, second))
    same = torch.allclose(permuted[:, place], logits, rtol=1e-3, atol=1e-4)
    _require(same, first, "logits depend on the order of the classes")


def _tensor_pairs(first: Method, second: Method) -> Iterator[tuple[Tensor, Tensor]]:
    for one, other in ((first.named_parameters, second.named_parameters), (first.named_buffers, second.named_buffers)):
        others = dict(other())
        yield from ((value, others[name]) for name, value in one())


def _moved(values: Tensor, place: Tensor) -> Tensor:
    """Return values with the classes of every dimension of K entries in their new places."""
    for dimension, size in enumerate(values.shape):
        if size == len(place):
            values = values.index_select(dimension, place.argsort())
    return values


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
        out=folder,
    )
    (whole,) = prepare(plan(request))
    killed = replace(whole, folder=whole.folder.with_name("killed"), cache=whole.cache.with_name("killed"))
    run_trial(whole)
    for _ in range(1000):
        try:
            run_trial(killed, display=_KillingDisplay())
            break
        except _Killed:
            continue
    one, other = (read_predictions(spec.folder / "predictions.npz") for spec in (whole, killed))
    for name in ("val_logits", "test_logits"):
        if one[name].tobytes() != other[name].tobytes():
            reason = f"a trial that was killed after every epoch ends with other {name}"
            raise AssertionError(f"{method.name}: {reason}; all that it keeps must be in its state")


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
    from ltbench.methods import registry

    declared = registry.details(name).get("Neutral", "")
    if declared.startswith("none"):
        return None
    settings = dict(word.split("=", 1) for word in declared.split() if "=" in word)
    if not settings:
        advice = "add a line `Neutral: NAME=VALUE` or `Neutral: none, why`"
        raise ValueError(f"{name} declares no neutral setting; {advice}")
    return settings
