"""Measure on this machine: a bare training step, the real training loop, and MC-dropout scoring.

    ltbench throughput --backbone resnet18 --image-size 64 224 --batch-size 64

On two CPU cores a ResNet-18 takes one to two minutes at 64 pixels and about 15 at 224.

All figures of a size are taken in turn inside one process, several times, and the medians are printed, because
separate processes on a shared machine differ by more than what is to be seen. The store is filled with random
bytes: no figure depends on what the images show.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltbench.benchmarks.cli.command import Parser, about, guarded, invocation, script
from ltbench.datasets.base import Source
from ltbench.files import ProgressLine

if TYPE_CHECKING:
    import torch

    from ltbench.benchmarks.training.planning.plan import Plan
    from ltbench.benchmarks.training.trainer import Trainer
    from ltbench.methods.stages import EpochReport, Stage

PASSES = len(("bare", "loop", "plain", "mc", "full"))
"""Kinds of passes that are measured."""
_CLASSES = 8
_BOUNDS = {"batch_size": (2, 65536), "steps": (1, 10_000), "repeats": (1, 1000), "threads": (1, 1024)}
_MC_PASSES = 10


class RandomImages(Source):
    """Random bytes, so that measuring needs no data."""

    name = "random"
    title = "random"
    licence = citation = ""
    preset = "paper"
    default_n_max = 1

    def __init__(self, count: int) -> None:
        super().__init__(None)
        self.class_names = tuple(str(label) for label in range(_CLASSES))
        self.ids = np.array([f"random_{number:06d}" for number in range(count)])
        self.labels = np.arange(count, dtype=np.int64) % _CLASSES
        self.lesions, self.present = self.ids, np.ones(count, dtype=bool)

    def read(self, position: int, size: int) -> np.ndarray:
        """Return random bytes, uint8 [3, size, size]."""
        return np.random.default_rng(position).integers(0, 256, (3, size, size), dtype=np.uint8)

    def fingerprints(self, positions: np.ndarray) -> np.ndarray:
        """Return ones."""
        return np.ones(len(positions), dtype=np.int64)


class _Silent:
    def stage(self, name: str, epochs: int, done: int) -> None:
        """Show nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Figures:
    """Images per second, one figure a repeat: bare steps, the real loop, plain scoring, MC dropout, full passes."""

    bare: list[float]
    loop: list[float]
    plain: list[float]
    mc: list[float]
    full: list[float]

    def row(self, size: int, batch: int) -> list[str]:
        """Return the table's row: medians, and the ratio's median over pairs measured one after the other."""
        ratios = [loop / bare for loop, bare in zip(self.loop, self.bare, strict=True)]
        costs = [plain / mc for plain, mc in zip(self.plain, self.mc, strict=True)]
        gains = [mc / full for mc, full in zip(self.mc, self.full, strict=True)]
        rates = [f"{statistics.median(values):.1f}" for values in (self.bare, self.loop)]
        ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        scoring = [f"{statistics.median(values):.1f}" for values in (self.plain, self.mc, self.full)]
        cost = f"{statistics.median(costs):.3f} ({min(costs):.3f}-{max(costs):.3f})"
        return [str(size), str(batch), *rates, ratio, *scoring, cost, f"{statistics.median(gains):.1f}"]


def measure(
    backbone: str,
    size: int,
    batch: int,
    device: torch.device,
    precision: str,
    *,
    steps: int,
    repeats: int,
    progress: ProgressLine,
) -> Figures:
    """Return figures of one image size; bare step and loop, plain and MC scoring are measured in alternation.

    Parameters
    ----------
    steps, repeats : of a measurement, and how many of each kind are taken
    progress : counts `PASSES * (repeats + 1)` passes, the first of each kind being for warm-up
    """
    from ltbench.methods.stages import Stage

    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(Path(folder), backbone, size, batch, device, precision, steps)
        stage = Stage("train", epochs=1)
        with trainer.optimizing(stage, trainer.hooks_of(stage)) as optimizer:
            bare, loop = _bare_steps(trainer, optimizer, batch, steps), _loop(trainer, stage, optimizer)
            rates = _alternating({"bare": bare, "loop": loop}, steps * batch, device, repeats, progress)
        scored = np.arange(min(len(trainer.train_part), max(2, steps // 2) * batch))
        rates |= _alternating(_scoring(trainer, scored), len(scored), device, repeats, progress)
        full = _full_passes(trainer, scored[:batch])
        rates |= _alternating({"full": full}, min(batch, len(scored)), device, repeats, progress)
    return Figures(**rates)


def images_per_second(planned: Plan) -> float:
    """Return the training images per second under a plan's protocol on its device, by a short measurement."""
    protocol, batch = planned.protocol, min(planned.protocol.batch_size, 32)
    with ProgressLine("measuring a step", 2 * PASSES, unit="passes") as progress:
        device, precision = planned.device, protocol.precision
        budget: dict[str, Any] = {"steps": 4, "repeats": 1, "progress": progress}
        return measure(protocol.backbone, protocol.image_size, batch, device, precision, **budget).loop[0]


def _trainer(
    folder: Path, backbone: str, size: int, batch: int, device: torch.device, precision: str, steps: int
) -> Trainer:

    from ltbench.benchmarks.training.device import place
    from ltbench.benchmarks.training.journal import Journal
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.benchmarks.training.stage_cache import StageCache
    from ltbench.benchmarks.training.stages.backbones import ForwardCounter
    from ltbench.benchmarks.training.trainer import Trainer
    from ltbench.benchmarks.training.trial import build_method
    from ltbench.datasets.images.augmentation import stored_size
    from ltbench.datasets.images.part import ImagePart
    from ltbench.datasets.images.store import StoreBuilder
    from ltbench.methods import configure, registry

    protocol = protocol_for("paper", backbone=backbone, image_size=size, batch_size=batch, precision=precision)
    source = RandomImages(steps * batch)
    store = StoreBuilder(source, stored_size(size), folder).build(np.arange(len(source.ids)), quiet=True)
    part = ImagePart(store, source.ids, source.labels, device)
    counts = np.bincount(source.labels, minlength=_CLASSES)
    flex = registry.get("flex")
    method = build_method(flex, configure("flex", flex.Config, "quick", {}), protocol, counts, seed=0)
    place(method, device)
    journal, cache = Journal(folder), StageCache(folder, "")
    return Trainer(method, part, part, protocol, device, 0, journal, cache, _Silent(), ForwardCounter())


def _bare_steps(trainer: Trainer, optimizer: torch.optim.Optimizer, batch: int, steps: int) -> Callable[[], None]:
    """Return what the network alone costs: the same step on one batch that is ready in memory."""
    from ltbench.benchmarks.training.device import autocast
    from ltbench.methods.stages import Batch, Progress

    indices = np.arange(batch)
    images = trainer.inference.transform.evaluate(trainer.train_part.gather(indices))
    ready = Batch((images,), trainer.train_part.targets(indices), indices)

    def run() -> None:
        trainer.method.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast(trainer.device, trainer.protocol.precision):
                loss = trainer.method.loss(ready, Progress(0, 1))["loss"]
            loss.backward()
            optimizer.step()

    return run


def _loop(trainer: Trainer, stage: Stage, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    hooks, rates = trainer.hooks_of(stage), [group["lr"] for group in optimizer.param_groups]

    def run() -> None:
        trainer.train_epoch(stage, 0, hooks, optimizer, rates)

    return run


def _scoring(trainer: Trainer, indices: np.ndarray) -> dict[str, Callable[[], None]]:
    def plain() -> None:
        trainer.inference.logits(trainer.train_part, indices)

    def mc() -> None:
        trainer.inference.mc_probabilities(trainer.train_part, indices, _MC_PASSES, seed=0)

    return {"plain": plain, "mc": mc}


def _full_passes(trainer: Trainer, indices: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        for _ in range(_MC_PASSES):
            trainer.inference.logits(trainer.train_part, indices)

    return run


def _alternating(
    bodies: Mapping[str, Callable[[], None]], images: int, device: torch.device, repeats: int, progress: ProgressLine
) -> dict[str, list[float]]:
    """Time the bodies in turn after one warm-up each; return images per second by name."""
    import torch

    rates: dict[str, list[float]] = {name: [] for name in bodies}
    for repeat in range(repeats + 1):
        for name, body in bodies.items():
            started = time.perf_counter()
            body()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            progress.update()
            if repeat:
                rates[name].append(images / (time.perf_counter() - started))
    return rates


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parsed = Parser(
        prog=invocation("throughput"),
        description=about(__doc__, "throughput", whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsed.add_argument("--backbone", default="resnet18", metavar="NAME", help="a timm model; default: resnet18")
    parsed.add_argument("--image-size", type=int, nargs="+", default=[64, 224], metavar="N", help="default: 64 224")
    parsed.add_argument("--batch-size", type=int, default=64, metavar="N", help="default: 64")
    parsed.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda")
    parsed.add_argument("--precision", default="auto", metavar="NAME", help="auto, bf16, fp32")
    parsed.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: one a core")
    parsed.add_argument("--steps", type=int, default=8, metavar="N", help="steps a measurement; default: 8")
    parsed.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements; default: 5")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _main(options: argparse.Namespace) -> int:
    from tabulate import tabulate

    from ltbench.benchmarks.training.device import describe_device, prepare_process, resolve_device, resolve_precision
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.benchmarks.training.stages.backbones import check_backbone
    from ltbench.errors import UserError
    from ltbench.processes import available_cores

    for name, (low, high) in _BOUNDS.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} must be from {low} to {high}, got {value}")
    for size in options.image_size:
        check_backbone(protocol_for("paper", backbone=options.backbone, image_size=size))
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    threads = options.threads or available_cores()
    prepare_process(threads, device)
    print(f"{describe_device(device)} ({device}), {threads} CPU threads, {options.backbone}, {precision}; images/s")
    rows, batch = [], options.batch_size
    budget = {"steps": options.steps, "repeats": options.repeats}
    passes = len(options.image_size) * PASSES * (options.repeats + 1)
    with ProgressLine("measuring", passes, unit="passes") as progress:
        for size in options.image_size:
            figures = measure(options.backbone, size, batch, device, precision, **budget, progress=progress)
            rows.append(figures.row(size, batch))
    headers = ["size", "batch", "bare step", "real loop", "loop/bare", "plain pass", "MC T=10", "10 full passes"]
    print(tabulate(rows, [*headers, "MC cost in passes", "MC gain"], tablefmt="github", disable_numparse=True))
    return 0


if __name__ == "__main__":
    script(__file__)
