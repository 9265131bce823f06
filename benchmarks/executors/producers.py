"""Which trials compute what others use: of those that share their first stage, one goes before the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltbench.benchmarks.training.stage_cache import StageCache
from ltbench.benchmarks.training.stages.budget import budget_of, shared_encoder
from ltbench.benchmarks.training.streams import numpy_stream
from ltbench.benchmarks.training.trial import build_method, is_done
from ltbench.benchmarks.training.trial_spec import TrialSpec
from ltbench.datasets.splits.manifest import Manifest
from ltbench.methods import registry
from ltbench.methods.base import Run
from ltbench.methods.stages import Stage
from ltbench.registry import load_plugin


def producers(specs: Sequence[TrialSpec]) -> dict[Path, Path]:
    """Return, by the folder of each trial that uses a shared stage, the folder of the trial that computes it.

    Where a trial that shares the stage is done, the stage is computed, and nobody waits for it.
    """
    alike: dict[tuple[int, str], list[TrialSpec]] = defaultdict(list)
    for spec in specs:
        alike[spec.seed, spec.split_digest].append(spec)
    found: dict[Path, Path] = {}
    stages: dict[Path, str | None] = {}
    for members in alike.values():
        users: dict[str, list[Path]] = defaultdict(list)
        for spec in members if len(members) > 1 else ():
            row = spec.folder.parent
            if row not in stages:
                stages[row] = _first_shared(spec)
            if (stage := stages[row]) is not None:
                users[stage].append(spec.folder)
        for folders in users.values():
            if not any(map(is_done, folders)):
                found |= dict.fromkeys(folders[1:], folders[0])
    return found


def _first_shared(spec: TrialSpec) -> str | None:
    """Return a digest of what the first stage of a trial does, None where it is not a shared one."""
    stage = _first_stage(spec)
    if stage is None or stage.recipe is None:
        return None
    return f"{stage.name}/{StageCache(spec.cache, '').recipe_digest(stage)}"


def _first_stage(spec: TrialSpec) -> Stage | None:
    """Return the stage that a trial begins with, None where its method fails before it.

    The method is asked for it. Nothing else knows: it follows from hyper-parameters, `--init` and the number of
    images (the queue of a pre-training), a declaration beside `stages` could contradict it, and a journal holds it
    only when the trial has begun, by when all have been scheduled.
    """
    for plugin in spec.plugins:
        load_plugin(plugin)
    cls, counts, protocol = registry.get(spec.method), np.asarray(spec.data.class_counts), spec.protocol
    config, names = cls.Config(**spec.hyperparameters), spec.data.class_names
    try:
        run = _Untrained(spec)
        bare = protocol.without_weights()  # on which no stage depends
        method = build_method(cls, config, bare, counts, spec.seed, class_names=names)
        initial = shared_encoder(method, run, protocol, budget_of(protocol, run))
        return initial or next(method.stages(run), None)
    except Exception:  # a plug-in may raise anything; the trial itself then does so, too, and its outcome says why
        return None


class _Untrained(Run):
    """A trial before its first stage, as its method sees it, of a network that finds all images alike."""

    def __init__(self, spec: TrialSpec) -> None:
        manifest, protocol = Manifest.verify(spec.split_file, spec.split_digest), spec.protocol
        classes = len(spec.data.class_names)
        (_, self.labels), (_, self._val_labels) = manifest.part("train"), manifest.part("val")
        self.class_counts = np.bincount(self.labels, minlength=classes)
        self.val_class_counts = np.bincount(self._val_labels, minlength=classes)
        self.epochs, self.patience = protocol.epochs, protocol.patience
        self.batch_size, self.lr = protocol.batch_size, protocol.lr
        self.shared_encoder = protocol.shared_encoder
        self._seed = spec.seed

    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        return np.zeros((len(self.labels if indices is None else indices), 1), np.float32)

    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        return np.zeros(len(self.class_counts))

    def mc_scores(
        self, indices: np.ndarray, passes: int, stream: str, score: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        return np.zeros(len(indices))

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(self._val_labels), len(self.class_counts)), np.float32), self._val_labels

    def validation_features(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(self._val_labels), 1), np.float32), self._val_labels

    def rng(self, name: str) -> np.random.Generator:
        return numpy_stream(self._seed, "method", name)

    def memo(self, name: str, compute: Callable[[], Any], *, story: bool = True) -> Any:
        return compute()
