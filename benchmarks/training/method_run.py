"""What a method sees of its trial between stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ltbench.benchmarks.analysis.metrics import class_recall
from ltbench.benchmarks.training.inference import Inference
from ltbench.benchmarks.training.journal import Journal
from ltbench.benchmarks.training.protocol import Protocol
from ltbench.benchmarks.training.stages.backbones import ForwardCounter
from ltbench.benchmarks.training.streams import numpy_stream, stream_seed
from ltbench.datasets.images.part import ImagePart
from ltbench.methods.base import Run


class TrialRun(Run):
    """A method's view of its trial; see `ltbench.methods.Run`."""

    def __init__(
        self,
        protocol: Protocol,
        seed: int,
        train: ImagePart,
        val: ImagePart,
        num_classes: int,
        inference: Inference,
        journal: Journal,
        counter: ForwardCounter,
    ) -> None:
        self.labels = train.labels.copy()
        self.class_counts = np.bincount(train.labels, minlength=num_classes)
        self.val_class_counts = np.bincount(val.labels, minlength=num_classes)
        self.epochs, self.patience = protocol.epochs, protocol.patience
        self.batch_size, self.lr = protocol.batch_size, protocol.lr
        self.shared_encoder = protocol.shared_encoder
        self._seed, self._train, self._val = seed, train, val
        self._inference, self._journal, self._counter = inference, journal, counter
        self._validations, self._in_memo = 0, False
        self._memos: set[str] = set()

    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return features of training images: float32 [n, D]."""
        return self._inference.features(self._train, indices)

    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Return the accuracy of each class on training images: float64 [K]."""
        labels = self.labels if indices is None else self.labels[indices]
        blocks = self._inference.logit_blocks(self._train, indices)
        predicted = np.concatenate([logits.argmax(axis=1) for logits in blocks])
        return class_recall(labels, predicted, len(self.class_counts))

    def mc_scores(
        self, indices: np.ndarray, passes: int, stream: str, score: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return scores of training images from their probabilities under dropout: float64 [n]."""
        seed = stream_seed(self._seed, "mc_dropout", stream)
        return self._inference.mc_scores(self._train, indices, passes, seed, score)

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return logits, float32 [n, K], and classes, int64 [n], of the validation images."""
        if self._in_memo:
            return self._inference.logits(self._val), self._val.labels.copy()
        self._validations += 1
        name = f"validation{self._validations}"
        kept = self.memo(name, lambda: self._inference.logits(self._val), story=False)
        return np.asarray(kept, dtype=np.float32), self._val.labels.copy()

    def validation_features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return features, float32 [n, D], and classes, int64 [n], of the validation images."""
        return self._inference.features(self._val), self._val.labels.copy()

    def rng(self, name: str) -> np.random.Generator:
        """Return the trial's random stream of this name."""
        return numpy_stream(self._seed, "method", name)

    def memo(self, name: str, compute: Callable[[], Any], *, story: bool = True) -> Any:
        """Return `compute()`, computed once in the life of the trial."""
        if not name or "/" in name or "\\" in name or name in self._memos:
            reason = "is taken" if name in self._memos else "must be text without slashes"
            raise ValueError(f"the name of a memo, {name!r}, {reason}")
        self._memos.add(name)
        started, cpu_before = time.perf_counter(), time.process_time()
        forward_before, nested = self._counter.images, self._in_memo

        def cost() -> Mapping[str, float]:
            if nested:  # the outer one is charged for all of it
                return {"seconds": 0.0, "cpu_seconds": 0.0, "forward_images": 0}
            times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu_before}
            return {**times, "forward_images": self._counter.images - forward_before}

        def seeded() -> Any:
            # Draws inside leave the generators as a replay, which does not compute, finds them.
            with torch.random.fork_rng([self._inference.device] if self._inference.device.type == "cuda" else []):
                torch.manual_seed(stream_seed(self._seed, "memo", name))
                self._in_memo = True
                try:
                    return compute()
                finally:
                    self._in_memo = nested

        return self._journal.memo(name, seeded, cost, story=story)
