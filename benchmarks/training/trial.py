"""One trial as one idempotent job: skipped when done, resumed when begun, claimed by a lock, recorded at its end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout

import ltbench
from ltbench.benchmarks.analysis.metrics import by_class, evaluate
from ltbench.benchmarks.analysis.records import Cost, ProtocolValues, Result, SelectedEpoch, StageCost, read_result
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.device import compute_dtype, describe_device, place, prepare_process
from ltbench.benchmarks.training.display import Display, TrialDisplay
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal, Selection
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.stages.optimizers import new_optimizer
from ltbench.benchmarks.training.streams import stream_seed
from ltbench.benchmarks.training.trainer import Trainer
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.store import ImageStore
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import plain, read_json, write_arrays, write_json, write_tensors
from ltbench.methods import registry
from ltbench.methods.base import Method, Task
from ltbench.registry import load_plugin

_IDENTITY = (
    *("dataset", "variant", "ratio", "split", "method", "hyperparameters", "plugin"),
    *("trial", "seed", "protocol_digest", "split_digest", "pixels"),
)


def is_done(folder: Path) -> bool:
    """Return whether a trial's record is complete; a corrupt one is an error, not an unfinished trial."""
    path = folder / "result.json"
    if not path.exists():
        return False
    read_result(path)
    return True


def run_trial(spec: TrialSpec, slot: int = 0, display: Display | None = None) -> str:
    """Run a trial; return `done`, `skipped` (it was done before) or `busy` (another process has it).

    Parameters
    ----------
    slot : line on the terminal
    display : of its progress; None: a bar in that line, or plain lines

    Raises
    ------
    UserError : anything that the user can mend; what was done so far stays and is used by the next run
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(spec.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "busy"
    bar = TrialDisplay(spec.label, slot)
    try:
        if is_done(spec.folder):
            _require_same_pixels(spec)
            Journal(spec.folder).drop_all_weights()
            wandb_mirror.repeat_in_sweep(spec, bar)
            return "skipped"
        for plugin in spec.plugins:
            load_plugin(plugin)
        with contextlib.closing(bar), wandb_mirror.mirrored(spec, display or bar) as shown:
            _run(spec, shown)
        return "done"
    finally:
        lock.release()


def _require_same_pixels(spec: TrialSpec) -> None:
    """Refuse to take a finished trial for one of images that have changed since."""
    if read_result(spec.folder / "result.json").data.pixels != spec.data.pixels:
        raise UserError(
            f"{spec.folder} was run on other pixels of the same images (files changed, or are decoded otherwise); "
            "use --fresh or another --out"
        )


def discard(folder: Path) -> None:
    """Delete what is stored of a trial.

    Raises
    ------
    UserError : another process is running it
    """
    if not folder.exists():
        return
    try:
        with FileLock(folder / "lock", timeout=0):
            shutil.rmtree(folder)
    except Timeout:
        raise UserError(f"{folder} is in use by another process; stop it before --fresh") from None


def _run(spec: TrialSpec, display: Display) -> None:
    threads = _claim(spec)
    device, protocol = torch.device(spec.device), spec.protocol
    prepare_process(threads, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    manifest = Manifest.verify(spec.folder.parent / "split.csv", spec.split_digest)
    store = ImageStore(spec.store)
    part = partial(_part, manifest, store, device=device)
    train, val = part("train"), part("val")
    class_names = spec.data.class_names
    counts = np.bincount(train.labels, minlength=len(class_names))
    seed = protocol.seed + spec.trial
    backbones = Backbones(protocol, seed)
    cls = registry.get(spec.method)
    config = cls.Config(**spec.hyperparameters)
    method = build_method(cls, config, protocol, counts, seed, class_names=class_names, backbones=backbones)
    place(method, device)
    journal = Journal(spec.folder)
    cache = StageCache(spec.cache, f"{spec.split_digest}/{store.folder.name}/{store.digest(train.ids)}")
    trainer = Trainer(method, train, val, protocol, device, seed, journal, cache, display, backbones.counter)
    selection = trainer.run()
    trainer.load_selected(selection)
    _record(spec, method, journal, selection, {"val": val, "test": lambda: part("test")}, threads)


def build_method(
    method: type[Method],
    config: Any,
    protocol: Protocol,
    class_counts: np.ndarray,
    seed: int,
    *,
    class_names: Sequence[str] = (),
    backbones: Backbones | None = None,
) -> Method:
    """Return a method at its initial weights: the backbone's are the same for every method of a trial.

    Parameters
    ----------
    method, config : registered class, and its hyper-parameters as it declares them
    class_counts : int64 [K], of the training images
    seed : of the trial
    class_names : [K]
    backbones : of the trial; None: of this method alone

    Raises
    ------
    UserError : published weights that cannot be had, or a backbone that the method cannot use
    """
    backbones = backbones or Backbones(protocol, seed)
    backbone = backbones.new()
    torch.manual_seed(stream_seed(seed, "init", "method"))
    task = Task(
        len(class_counts),
        class_counts,
        protocol.image_size,
        tuple(class_names),
        new_backbone=backbones.new,
        new_optimizer=partial(new_optimizer, protocol),
    )
    return method(config, task, backbone)


def _part(manifest: Manifest, store: ImageStore, name: str, device: torch.device) -> ImagePart:
    ids, labels = manifest.part(name)
    return ImagePart(store, ids, labels, device)


def _claim(spec: TrialSpec) -> int:
    """Write the trial's configuration, or check it against the one there; return the threads to use.

    A resumed trial keeps the number of threads that it began with: sums are split among threads, so another number
    would give other last digits.
    """
    path = spec.folder / "config.json"
    if path.exists():
        stored, config = read_json(path), plain(spec.config())
        differing = [name for name in _IDENTITY if not isinstance(stored, dict) or stored.get(name) != config.get(name)]
        if differing or not isinstance(stored.get("threads"), int):
            reason = f"belongs to another run (other {', '.join(differing) or 'threads'})"
            raise UserError(f"{spec.folder} {reason}; use --fresh or another --out")
        return stored["threads"]
    own = {"threads": spec.threads, "code_version": code_version(), "request": spec.request}
    write_json(path, {**spec.config(), **own})
    return spec.threads


def _record(
    spec: TrialSpec,
    method: Method,
    journal: Journal,
    selection: Selection,
    parts: Mapping[str, Any],
    threads: int,
) -> None:
    """Score validation and, once, test; write predictions, weights and, last, the result."""
    device, protocol = torch.device(spec.device), spec.protocol
    transform = BatchTransform(protocol.image_size, protocol.augmentation, compute_dtype(protocol.precision))
    inference = Inference(method, transform, device, protocol.precision, protocol.batch_size)
    arrays: dict[str, np.ndarray] = {}
    scores: dict[str, Any] = {}
    inspected: dict[str, Any] = {}
    for name, source in parts.items():
        part: ImagePart = source() if callable(source) else source
        logits, details = inference.inspected(part)
        arrays |= {f"{name}_ids": part.ids.astype(str), f"{name}_labels": part.labels, f"{name}_logits": logits}
        arrays |= {f"{name}_{detail}": values for detail, values in details.items()}
        scores[name] = evaluate(part.labels, logits, spec.data.groups, spec.data.class_names, spec.data.special_classes)
        inspected[name] = {key: by_class(part.labels, values, logits.shape[1]) for key, values in details.items()}
    write_arrays(spec.folder / "predictions.npz", arrays, durable=True)
    write_tensors(spec.folder / "model.pt", method.state_dict(), durable=True)
    result = Result(
        data=spec.data,
        method=spec.method,
        hyperparameters=spec.hyperparameters,
        changed=spec.changed,
        plugin=spec.plugin,
        trial=spec.trial,
        seed=protocol.seed + spec.trial,
        protocol=cast(ProtocolValues, asdict(protocol)),
        protocol_digest=protocol.digest(),
        split_digest=spec.split_digest,
        code_version=code_version(),
        code_version_at_start=read_json(spec.folder / "config.json").get("code_version"),
        versions=library_versions(),
        device=describe_device(device),
        threads=threads,
        selection=SelectedEpoch(protocol.selection_metric, selection.score, selection.stage, selection.epoch),
        val=scores["val"],
        test=scores["test"],
        inspected=inspected,
        cost=cost_of(journal, method, device),
        story={name: memo["value"] for name, memo in journal.memos().items() if memo["told"]},
    )
    write_json(spec.folder / "result.json", result.to_json(), durable=True)
    journal.drop_all_weights()


def cost_of(journal: Journal, method: Method, device: torch.device) -> Cost:
    """Return the full cost of a trial, that of shared stages included.

    Parameters
    ----------
    journal, method : of the trial
    device : whose memory is meant; on the CPU the process's, which may have run earlier trials
    """
    stages = tuple(_stage_cost(stage) for stage in journal.stages())
    memos = [memo["cost"] for memo in journal.memos().values()]
    on_gpu = device.type == "cuda"
    return Cost(
        train_seconds=sum(stage.seconds for stage in stages) + sum(memo["seconds"] for memo in memos),
        images_seen=sum(stage.images for stage in stages),
        forward_images=sum(stage.forward_images for stage in stages) + sum(memo["forward_images"] for memo in memos),
        parameters=sum(parameter.numel() for parameter in method.parameters()),
        peak_memory_mib=torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _peak_process_memory(),
        stages=stages,
    )


def _stage_cost(stage: Mapping[str, Any]) -> StageCost:
    """Return what a stage of the journal took."""
    reports = stage["reports"]
    return StageCost(
        name=stage["name"],
        cached=stage["cached"],
        epochs=sum(report["steps"] > 0 for report in reports),
        steps=sum(report["steps"] for report in reports),
        images=sum(report["images"] for report in reports),
        forward_images=sum(report["forward_images"] for report in reports),
        seconds=sum(report["seconds"] for report in reports),
    )


def _peak_process_memory() -> float | None:
    """Return the most memory that this process has held, MiB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def code_version() -> str:
    """Return the version of ltbench, with the git commit where it runs from a checkout."""
    root = Path(ltbench.__file__).parent
    if not (root / ".git").exists():
        return ltbench.__version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ltbench.__version__
    return f"{ltbench.__version__}+{commit}"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    names = ("torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}
