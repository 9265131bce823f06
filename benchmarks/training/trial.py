"""One trial as one idempotent job: skipped when done, resumed when begun, claimed by a lock, recorded at its end."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from filelock import FileLock, Timeout

import ltbench
from ltbench.benchmarks.analysis.metrics import by_class, evaluate
from ltbench.benchmarks.analysis.records import read_result
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.device import compute_dtype, describe_device, prepare_process
from ltbench.benchmarks.training.display import Display, TrialDisplay
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal, Selection
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.streams import stream_seed
from ltbench.benchmarks.training.trainer import Trainer
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.store import ImageStore
from ltbench.datasets.images.transforms import BatchTransform
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import plain, read_json, write_arrays, write_json, write_tensors
from ltbench.methods import create
from ltbench.methods.base import Method, Task
from ltbench.registry import load_plugin, unknown

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


def run_trial(spec: TrialSpec, slot: int = 0) -> str:
    """Run a trial; return `done`, `skipped` (it was done before) or `busy` (another process has it).

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
    try:
        if is_done(spec.folder):
            _require_same_pixels(spec)
            Journal(spec.folder).drop_all_weights()
            wandb_mirror.repeat_in_sweep(spec, TrialDisplay(spec.label, slot).line)
            return "skipped"
        for plugin in spec.plugins:
            load_plugin(plugin)
        display = TrialDisplay(spec.label, slot)
        with contextlib.closing(display), wandb_mirror.tracked(spec, display) as shown:
            _run(spec, shown)
        return "done"
    finally:
        lock.release()


def _require_same_pixels(spec: TrialSpec) -> None:
    """Refuse to take a finished trial for one of images that have changed since."""
    then, now = (own.get("pixels") for own in (read_result(spec.folder / "result.json"), spec.setting))
    if then != now:
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
    num_classes = len(spec.setting["class_names"])
    counts = np.bincount(train.labels, minlength=num_classes)
    seed = protocol.seed + spec.trial
    method = build_method(spec.method, spec.hyperparameters, protocol, num_classes, counts, seed).to(
        device, memory_format=torch.channels_last
    )
    journal = Journal(spec.folder)
    cache = StageCache(spec.cache, f"{spec.split_digest}/{store.folder.name}/{store.digest(train.ids)}")
    trainer = Trainer(method, train, val, protocol, device, seed, journal, cache, display)
    selection = trainer.run()
    trainer.load_selected(selection)
    _record(spec, method, journal, selection, {"val": val, "test": lambda: part("test")}, threads)


def build_method(
    name: str,
    hyperparameters: Mapping[str, Any],
    protocol: Protocol,
    num_classes: int,
    class_counts: np.ndarray,
    seed: int,
) -> Method:
    """Return a method at its initial weights: the backbone's are the same for every method of a trial.

    Raises
    ------
    UserError : an unknown backbone, or published weights that cannot be had
    """
    torch.manual_seed(stream_seed(seed, "init", "backbone"))
    try:
        backbone = timm.create_model(protocol.backbone, pretrained=protocol.pretrained, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"backbone {protocol.backbone} (pretrained={protocol.pretrained}): {reason}") from error
    torch.manual_seed(stream_seed(seed, "init", "method"))
    task = Task(num_classes, class_counts, protocol.image_size)
    return create(name, task, backbone, preset=protocol.preset, **hyperparameters)


def check_backbone(name: str) -> None:
    """Refuse a backbone that timm does not know.

    Raises
    ------
    UserError : with the nearest known ones
    """
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
        raise unknown("backbone", name, near or ["resnet18", "resnet50", "and the others that timm lists"])


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
    write_json(path, {**spec.config(), "threads": spec.threads, "code_version": code_version()})
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
    described: dict[str, Any] = {}
    for name, source in parts.items():
        part: ImagePart = source() if isinstance(source, Callable) else source
        logits, details = inference.inspected(part)
        arrays |= {f"{name}_ids": part.ids.astype(str), f"{name}_labels": part.labels, f"{name}_logits": logits}
        arrays |= {f"{name}_{detail}": values for detail, values in details.items()}
        scores[name] = evaluate(part.labels, logits, spec.setting["groups"], spec.setting["class_names"])
        described[name] = {key: by_class(part.labels, values, logits.shape[1]) for key, values in details.items()}
    write_arrays(spec.folder / "predictions.npz", arrays, durable=True)
    write_tensors(spec.folder / "model.pt", method.state_dict(), durable=True)
    result = {
        **spec.config(),
        "code_version": code_version(),
        "code_version_at_start": read_json(spec.folder / "config.json").get("code_version"),
        "versions": library_versions(),
        "device": describe_device(device),
        "threads": threads,
        "selection": {"metric": protocol.selection_metric, **asdict(selection)},
        **scores,
        "inspected": described,
        "cost": cost_of(journal, method, device, len(arrays["val_ids"])),
        "story": {name: memo["value"] for name, memo in journal.memos().items() if memo["told"]},
    }
    del result["selection"]["weights"]
    write_json(spec.folder / "result.json", result, durable=True)
    journal.drop_all_weights()


def cost_of(journal: Journal, method: Method, device: torch.device, val_images: int) -> dict[str, Any]:
    """Return the full cost of a trial, that of shared stages included.

    `train_seconds` are wall-clock seconds of all stages and of the passes between them; `images_seen` counts training
    images, every view; `peak_memory_mib` is the device's on a GPU, else the process's, which may have run earlier
    trials; `forward_images` adds those of validation, and of features and scoring between stages.
    """
    stages = []
    for stage in journal.stages():
        reports = stage["reports"]
        stages.append(
            {
                "name": stage["name"],
                "cached": stage["cached"],
                "epochs": sum(report["steps"] > 0 for report in reports),
                "steps": sum(report["steps"] for report in reports),
                "images": sum(report["images"] for report in reports),
                "validations": sum(report["val_recall"] is not None for report in reports),
                "seconds": sum(report["seconds"] for report in reports),
            }
        )
    trained = sum(stage["images"] for stage in stages)
    validated = sum(stage["validations"] for stage in stages) * val_images
    memos = [memo["cost"] for memo in journal.memos().values()]
    on_gpu = device.type == "cuda"
    return {
        "train_seconds": sum(stage["seconds"] for stage in stages) + sum(memo["seconds"] for memo in memos),
        "images_seen": trained,
        "forward_images": trained + validated + sum(memo["forward_images"] for memo in memos),
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else _peak_process_memory(),
        "stages": stages,
    }


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
