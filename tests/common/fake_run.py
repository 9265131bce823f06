"""A trial without training: what a method is asked and told between stages, for tests of its stages."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ltbench.methods import Method, Run, Stage, StageResult


class FakeRun(Run):
    """A run of known labels and features whose memo keeps what JSON keeps; nothing else may be asked.

    Parameters
    ----------
    labels : int [N]
    features : float [N, D], or what returns them
    protocol : epochs, patience, batch_size, lr

    Attributes
    ----------
    memos : kept values as JSON
    reads : how often features were asked for
    """

    def __init__(
        self, labels: Sequence[int] | np.ndarray, features: Any = None, *, epochs: int = 20, **protocol: Any
    ) -> None:
        self.labels = np.asarray(labels)
        self.class_counts = self.val_class_counts = np.bincount(self.labels)
        self.epochs, self.patience = epochs, protocol.get("patience", 5)
        self.batch_size, self.lr = protocol.get("batch_size", 16), protocol.get("lr", 1e-3)
        self.memos: dict[str, str] = {}
        self.reads, self._features = 0, features

    def features(self, indices: np.ndarray | None = None) -> np.ndarray:
        self.reads += 1
        return self._features() if callable(self._features) else self._features

    def accuracy(self, indices: np.ndarray | None = None) -> np.ndarray:
        raise NotImplementedError

    def mc_scores(
        self, indices: np.ndarray, passes: int, stream: str, score: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        raise NotImplementedError

    def validation(self) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def validation_features(self) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng(2)

    def memo(self, name: str, compute: Callable[[], Any], *, story: bool = True) -> Any:
        if name not in self.memos:
            self.memos[name] = json.dumps(compute(), default=lambda value: value.tolist())
        return json.loads(self.memos[name])


def walk(method: Method, run: Run, between: Callable[[Stage], None] = lambda stage: None) -> list[Stage]:
    """Return the stages of a run in which nothing is trained; `between` is called while each is current."""
    stages, plan = [], method.stages(run)
    stage = next(plan)
    while True:
        stages.append(stage)
        between(stage)
        try:
            stage = plan.send(StageResult(stage.name, False, ()))
        except StopIteration:
            return stages
