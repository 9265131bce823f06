"""Measure on this machine: a bare training step, the real training loop, and MC-dropout scoring.

    ltbench throughput --backbone resnet18 --image-size 64 224 --batch-size 64
    ltbench throughput --measure checkpoint job trials
    ltbench throughput --scale

On two CPU cores a ResNet-18 takes one to two minutes at 64 pixels and about 15 at 224.

All figures of a size are taken in turn inside one process, several times, and the medians are printed, because
separate processes on a shared machine differ by more than what is to be seen. The store is filled with random
bytes: no figure depends on what the images show.

After that, or alone with `--measure`: what a checkpoint takes, the README's job by part, and how much longer a trial
trains beside others.

With `--scale`, what grows with the number of images or of classes is measured at three sizes instead, each in a
process of its own, `--repeats` times: the least CPU seconds, the most memory of the process, and the power of the size
by which the seconds grow.
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
from ltbench.benchmarks.scaling.random_images import CLASSES, RandomImages
from ltbench.files import ProgressLine

if TYPE_CHECKING:
    import torch

    from ltbench.benchmarks.training.planning.plan import Plan
    from ltbench.benchmarks.training.trainer import Trainer
    from ltbench.methods.stages import EpochReport, Stage

PASSES = len(("bare", "loop", "plain", "mc", "full"))
"""Kinds of passes that are measured."""
_BOUNDS = {"batch_size": (2, 65536), "steps": (1, 10_000), "repeats": (1, 1000), "threads": (1, 1024)}
_MC_PASSES = 10
_MEASURED = ("steps", "checkpoint", "job", "trials")


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
    counts = np.bincount(source.labels, minlength=CLASSES)
    flex = registry.get("flex")
    method = build_method(flex, configure("flex", flex.Config, "quick", {}), protocol, counts, seed=0)
    place(method, device)
    journal, cache = Journal(folder), StageCache(folder, "")
    return Trainer(
        method, part, part, protocol, device, 0, journal, cache, _Silent(), ForwardCounter(), checkpoint_seconds=30.0
    )


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
    from ltbench.samplers import mutual_information

    def plain() -> None:
        trainer.inference.logits(trainer.train_part, indices)

    def mc() -> None:
        trainer.inference.mc_scores(trainer.train_part, indices, _MC_PASSES, 0, mutual_information)

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
    about_scale = "instead: how time and memory grow with images and classes; cases, default: all, 10 minutes"
    parsed.add_argument("--scale", nargs="*", metavar="CASE", help=about_scale)
    parsed.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements; default: 5")
    about_measure = f"only some of {', '.join(_MEASURED)}; default: all"
    parsed.add_argument("--measure", nargs="+", default=_MEASURED, metavar="NAME", help=about_measure)
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    return guarded(lambda: _main(parser().parse_args(arguments)))


def _scale(names: Sequence[str], repeats: int) -> int:
    """Print how cases grow; return the exit code, 1 where one could not be measured."""
    from tabulate import tabulate

    from ltbench.benchmarks.scaling.cases import CASES
    from ltbench.benchmarks.scaling.measuring import HEADERS, check_cases, growth

    check_cases(names)
    found = []
    with ProgressLine("measuring", len(names or CASES), unit="cases") as progress:
        for name in names or CASES:
            found.append(growth(name, repeats))
            progress.update()
    print(tabulate([each.row() for each in found], HEADERS, tablefmt="github", disable_numparse=True))
    return int(any(each.failure for each in found))


def _main(options: argparse.Namespace) -> int:
    from ltbench.benchmarks.timing.report import MEASUREMENTS
    from ltbench.benchmarks.training.device import describe_device, prepare_process, resolve_device, resolve_precision
    from ltbench.benchmarks.training.protocol import protocol_for
    from ltbench.benchmarks.training.stages.backbones import check_backbone
    from ltbench.errors import UserError
    from ltbench.processes import available_cores
    from ltbench.registry import unknown

    for name, (low, high) in _BOUNDS.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} must be from {low} to {high}, got {value}")
    if options.scale is not None:
        return _scale(options.scale, options.repeats)
    for name in options.measure:
        if name not in _MEASURED:
            raise unknown("measurement", name, _MEASURED)
    for size in options.image_size:
        check_backbone(protocol_for("paper", backbone=options.backbone, image_size=size))
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    threads = options.threads or available_cores()
    prepare_process(threads, device)
    print(f"{describe_device(device)} ({device}), {threads} CPU threads, {options.backbone}, {precision}; images/s")
    for name in _MEASURED:
        if name == "steps" and name in options.measure:
            print(_steps(options, device, precision), flush=True)
        elif name in options.measure:
            print(f"\n{MEASUREMENTS[name](device, options.backbone, options.image_size[0])}", flush=True)
    return 0


def _steps(options: argparse.Namespace, device: torch.device, precision: str) -> str:
    """Return the table of images per second."""
    from tabulate import tabulate

    rows, batch = [], options.batch_size
    budget = {"steps": options.steps, "repeats": options.repeats}
    passes = len(options.image_size) * PASSES * (options.repeats + 1)
    with ProgressLine("measuring", passes, unit="passes") as progress:
        for size in options.image_size:
            figures = measure(options.backbone, size, batch, device, precision, **budget, progress=progress)
            rows.append(figures.row(size, batch))
    headers = ["size", "batch", "bare step", "real loop", "loop/bare", "plain pass", "MC T=10", "10 full passes"]
    return tabulate(rows, [*headers, "MC cost in passes", "MC gain"], tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    script(__file__)
