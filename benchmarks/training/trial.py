"""One trial as one idempotent job: skipped when done, resumed when begun, claimed, recorded at its end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import ltbench
from ltbench.benchmarks.analysis.metrics import by_class, evaluate
from ltbench.benchmarks.analysis.record_files.damage import sound_record
from ltbench.benchmarks.analysis.record_files.derived import DerivedFiles
from ltbench.benchmarks.analysis.record_files.stored_logits import restored, stored
from ltbench.benchmarks.analysis.record_files.values import ProtocolValues
from ltbench.benchmarks.analysis.records import Result, SelectedEpoch
from ltbench.benchmarks.training import wandb_mirror
from ltbench.benchmarks.training.device import describe_device, place, prepare_process
from ltbench.benchmarks.training.display import Display, TrialDisplay
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal, Selection
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.stages.backbones import Backbones
from ltbench.benchmarks.training.stages.cost import cost_of
from ltbench.benchmarks.training.stages.frozen_features import backbones_of, completed
from ltbench.benchmarks.training.stages.optimizers import new_optimizer
from ltbench.benchmarks.training.stages.provenance import described_weights
from ltbench.benchmarks.training.streams import stream_seed
from ltbench.benchmarks.training.trainer import Trainer
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.datasets.images.part import ImagePart
from ltbench.datasets.images.store import ImageStore
from ltbench.datasets.splits.manifest import Manifest
from ltbench.errors import UserError
from ltbench.files import file_hash, plain, read_json, write_arrays, write_json, write_tensors
from ltbench.locks import Claim, ClaimLostError, claimed, holder, lock_of
from ltbench.methods import registry
from ltbench.methods.base import Method, Task
from ltbench.methods.contract import Contract
from ltbench.registry import load_plugin

_ROOMS = ("benchmarks", "datasets", "losses", "methods", "samplers")  # packages, where a new module is a change
_NO_CODE = (":!benchmarks/boards", ":!docs", ":!tests", ":!*.md", ":!CITATION.cff")
TRACEBACK = "error.txt"
"""The file in a trial's folder that holds the traceback of the last attempt, where it failed."""

_IDENTITY = (
    *("dataset", "variant", "ratio", "split", "method", "hyperparameters", "plugin"),
    *("trial", "seed", "protocol_digest", "split_digest", "pixels"),
)


def is_done(folder: Path) -> bool:
    """Return whether a trial has ended; its record may be damaged since."""
    return (folder / "result.json").exists()


def run_trial(spec: TrialSpec, slot: int = 0, display: Display | None = None) -> str:
    """Run a trial; return `done`, `skipped` (it was done before) or `busy` (another process has it).

    Parameters
    ----------
    slot : line on the terminal
    display : of its progress; None: a bar in that line, or plain lines

    Raises
    ------
    UserError : anything that the user can fix; what was done so far stays and is used by the next run
    """
    return Trial(spec, TrialDisplay(spec.label, slot), display).run()


def discard(folder: Path) -> None:
    """Delete what is stored of a trial: by one rename, after which nothing of it counts, whenever the process ends.

    Raises
    ------
    UserError : another process is running it
    """
    if not folder.parent.exists():
        return
    with claimed(lock_of(folder)) as claim:
        if claim is None:
            raise UserError(f"{folder} is in use by {holder(lock_of(folder))}; stop it before --fresh")
        if folder.exists():
            folder.rename(folder.with_name(f"discarded-{folder.name}-{uuid.uuid4().hex[:12]}"))
        delete_discarded(folder)


def delete_discarded(folder: Path) -> None:
    """Delete what `discard` has renamed of a trial, also in a process that was killed meanwhile."""
    for leftover in folder.parent.glob(f"discarded-{folder.name}-*"):
        shutil.rmtree(leftover)


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
    built = method(config, task, backbone)
    backbones.counter.watch_all(built)
    return Contract.of(built).built(built)


class Trial:
    """One trial: what it is, where it lies, and what is shown of it.

    Parameters
    ----------
    spec : everything that it depends on
    bar : its line on the terminal
    display : of its progress; None: the bar
    """

    def __init__(self, spec: TrialSpec, bar: TrialDisplay, display: Display | None = None) -> None:
        self.spec, self.folder, self.device = spec, spec.folder, torch.device(spec.device)
        self._bar, self._display = bar, display or bar

    def run(self) -> str:
        """Run it, if there is anything to do and no other process has it; see `run_trial`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with claimed(lock_of(self.folder)) as claim:
            try:
                return self._run(claim) if claim else "busy"
            except ClaimLostError:  # this process was suspended, and another one has gone on with the trial
                return "busy"

    def _run(self, claim: Claim) -> str:
        self.folder.mkdir(exist_ok=True)  # another process may have discarded it
        delete_discarded(self.folder)
        if is_done(self.folder):
            self._leave_as_done()
            return "skipped"
        (self.folder / TRACEBACK).unlink(missing_ok=True)  # of an earlier attempt
        self._load_plugins()
        with contextlib.closing(self._bar), wandb_mirror.mirrored(self.spec, self._display) as shown:
            self._train(shown, claim)
        return "done"

    def _load_plugins(self) -> None:
        """Import the files of plug-ins, if this process has not; refuse other text than was planned."""
        for plugin in self.spec.plugins:
            load_plugin(plugin)
        registry.get(self.spec.method)  # imports that of an installed package
        if registry.source_digest(self.spec.method) != self.spec.plugin:
            raise UserError(f"the files of {self.spec.method} changed after this program loaded them; start it again")

    def _leave_as_done(self) -> None:
        """Check that a finished trial is whole, and of the images as they are now."""
        try:
            record = sound_record(self.folder, derived=DerivedFiles.under(self.folder.parents[2]))
        except UserError as error:
            spec, data = self.spec, self.spec.data
            ratio = "natural" if data.natural else f"{data.ratio:g}"
            own = f"--fresh --trial {spec.trial} --method {spec.method} --ratio {ratio}"
            raise UserError(f"damaged: {error}; for this trial alone: {own}") from error
        if record.result.data.pixels != self.spec.data.pixels:
            raise UserError(
                f"{self.folder} was run on other pixels of the same images (files changed, or are decoded otherwise); "
                "use --fresh or another --out"
            )
        Journal(self.folder).drop_all_weights()
        wandb_mirror.repeat_in_sweep(self.spec, self._bar)

    def _train(self, display: Display, claim: Claim) -> None:
        threads = self._claim()
        spec, protocol = self.spec, self.spec.protocol
        prepare_process(threads, self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        manifest = Manifest.verify(spec.split_file, spec.split_digest)
        store = ImageStore(spec.store)
        images = {name: ImagePart(store, *manifest.part(name), self.device) for name in ("train", "val")}
        backbones = backbones_of(protocol, spec.seed, self.device)
        counts = np.bincount(images["train"].labels, minlength=len(spec.data.class_names))
        method = self._method(counts, backbones)
        journal = Journal(self.folder, file_hash(self.folder / "config.json"), claim.require)
        journal.require_whole()
        pixels = "/".join(part.digest for part in images.values())  # validation images decide epochs of a shared stage
        cache = StageCache(spec.cache, f"{spec.split_digest}/{store.folder.name}/{pixels}")
        train, val = (backbones.part(part, name, cache, journal) for name, part in images.items())
        shown = (journal, cache, display, backbones.counter)
        trainer = Trainer(method, train, val, protocol, self.device, spec.seed, *shown, spec.checkpoint_seconds)
        selection = trainer.run()
        trainer.load_selected(selection)
        # Test images are looked at from here on, by nobody but the record.
        test = ImagePart(store, *manifest.part("test"), self.device)
        parts = {"val": val, "test": backbones.part(test, "test", cache)}
        self._record(method, journal, selection, parts, threads, claim)

    def _method(self, class_counts: np.ndarray, backbones: Backbones) -> Method:
        """Return the method at its initial weights, on the device."""
        spec, cls = self.spec, registry.get(self.spec.method)
        config, names = cls.Config(**spec.hyperparameters), spec.data.class_names
        method = build_method(
            cls, config, spec.protocol, class_counts, spec.seed, class_names=names, backbones=backbones
        )
        place(method, self.device)
        return method

    def _claim(self) -> int:
        """Write the trial's configuration, or check it against the one there; return the threads to use.

        A resumed trial keeps the number of threads that it began with: sums are split among threads, so another number
        would give other last digits.
        """
        path, spec = self.folder / "config.json", self.spec
        if not path.exists():
            own = {"threads": spec.threads, "code_version": code_version(), "request": spec.request}
            write_json(path, {**spec.config(), **own})
            return spec.threads
        stored, config = read_json(path), plain(spec.config())
        differing = [name for name in _IDENTITY if not isinstance(stored, dict) or stored.get(name) != config.get(name)]
        if differing or not isinstance(stored.get("threads"), int):
            reason = f"belongs to another run (other {', '.join(differing) or 'threads'})"
            raise UserError(f"{self.folder} {reason}; use --fresh or another --out")
        return stored["threads"]

    def _record(
        self,
        method: Method,
        journal: Journal,
        selection: Selection,
        parts: Mapping[str, ImagePart],
        threads: int,
        claim: Claim,
    ) -> None:
        """Score validation and, once, test; write predictions, weights and, last, the result."""
        spec, protocol = self.spec, self.spec.protocol
        arrays, scores, inspected = self._scores(method, parts)
        method = completed(method)
        claim.require()
        files = {
            "predictions.npz": write_arrays(self.folder / "predictions.npz", arrays, durable=True),
            "model.pt": write_tensors(self.folder / "model.pt", method.state_dict(), durable=True),
            **{name: file_hash(self.folder / name) for name in ("config.json", "metrics.jsonl")},
            "split.csv": file_hash(spec.split_file),
        }
        result = Result(
            data=spec.data,
            method=spec.method,
            hyperparameters=spec.hyperparameters,
            changed=spec.changed,
            plugin=spec.plugin,
            trial=spec.trial,
            seed=spec.seed,
            protocol=cast(ProtocolValues, protocol.as_recorded()),
            protocol_digest=protocol.digest(),
            split_digest=spec.split_digest,
            code_version=code_version(),
            code_version_at_start=read_json(self.folder / "config.json").get("code_version"),
            versions=library_versions(),
            device=describe_device(self.device),
            device_type=self.device.type,
            threads=threads,
            files=files,
            selection=SelectedEpoch(protocol.selection_metric, selection.score, selection.stage, selection.epoch),
            val=scores["val"],
            test=scores["test"],
            inspected=inspected,
            cost=cost_of(journal, method, self.device),
            story={name: memo["value"] for name, memo in journal.memos().items() if memo["story"]},
            weights=described_weights(protocol),
        )
        claim.require()
        write_json(self.folder / "result.json", result.to_json(), durable=True)
        journal.drop_all_weights()

    def _scores(
        self, method: Method, parts: Mapping[str, ImagePart]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
        """Return predictions, metrics and what else the method says of images, of each part."""
        data = self.spec.data
        inference = Inference(method, self.spec.protocol, self.device)
        arrays: dict[str, np.ndarray] = {}
        scores, inspected = {}, {}
        for name, part in parts.items():
            logits, details = inference.inspected(part)
            if not np.isfinite(logits).all():
                raise UserError(f"method {self.spec.method} gives logits of {name} images that are not finite numbers")
            kept = {f"{name}_{own}": values for own, values in stored(logits).items()}
            logits = restored(kept, name)  # so that the numbers are those of what is stored
            arrays |= {f"{name}_ids": part.ids.astype(str), f"{name}_labels": part.labels, **kept}
            arrays |= {f"{name}_{detail}": values for detail, values in details.items()}
            scores[name] = evaluate(part.labels, logits, data.groups, data.class_names, data.special_classes)
            inspected[name] = {key: by_class(part.labels, values, logits.shape[1]) for key, values in details.items()}
        return arrays, scores, inspected


def code_version() -> str:
    """Return the version of ltbench, with the git commit where it runs from a checkout.

    `-dirty` says that code was changed: any file but documents, tests and published results, or a new module in one of
    the packages.
    """
    root = Path(ltbench.__file__).parent
    if not (root / ".git").exists():
        return ltbench.__version__
    try:
        commit = _git(root, "describe", "--always")
        changed = _git(root, "status", "--porcelain", "--untracked-files=all", "--", ".", *_NO_CODE).splitlines()
    except (OSError, subprocess.SubprocessError):
        return ltbench.__version__
    return f"{ltbench.__version__}+{commit}{'-dirty' if any(map(_is_code, changed)) else ''}"


def _is_code(line: str) -> bool:
    """Return whether a line of `git status --porcelain` is of code: a file that git knows, or a module of a package."""
    name = line[3:].strip('"')
    return not line.startswith("??") or (name.endswith(".py") and name.partition("/")[0] in _ROOMS)


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.rstrip()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    names = ("torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}
