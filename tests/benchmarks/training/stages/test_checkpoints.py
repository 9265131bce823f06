"""When a checkpoint is written, where, and who hears of an error."""

import contextlib
import threading
from typing import Any

import pytest
import torch

from ltbench.benchmarks.training.stages.checkpoints import Checkpoints
from ltbench.benchmarks.training.stages.snapshots import Snapshot
from ltbench.errors import Terminated

HOUR = 3600.0


class Journal:
    """Notes what is written, in another thread and not before it may be, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[Any] = []
        self.may, self.error = threading.Event(), error

    def save_checkpoint(self, position: int, checkpoint: Any) -> None:
        assert threading.current_thread() is not threading.main_thread() and self.may.wait(10)
        if self.error:
            raise self.error
        self.written.append(checkpoint)


def train(journal: Any, seconds: float, end: type[BaseException] = SystemExit) -> list[int]:
    """Train three epochs, which a journal notes by their numbers, until an exception ends it."""
    with contextlib.suppress(end), Checkpoints(journal, 0, seconds) as checkpoints:
        for epoch in range(3):
            checkpoints.keep(epoch)  # type: ignore[arg-type]
        journal.may.set()
        raise end
    return journal.written


SIGNALS = (Terminated, KeyboardInterrupt)


@pytest.mark.parametrize(("end", "expected"), [(ValueError, []), *((signal, [2]) for signal in SIGNALS)])
def test_checkpoints_come_by_time_and_at_a_signal(end: Any, expected: list[int]) -> None:
    assert train(Journal(), HOUR, end) == expected
    every = Journal()
    every.may.set()
    assert train(every, 0, end) == [0, 1, 2]


def test_training_goes_on_while_a_checkpoint_is_written() -> None:
    journal = Journal()
    checkpoints = Checkpoints(journal, 0, HOUR)  # type: ignore[arg-type]
    checkpoints._pace._since -= HOUR
    with checkpoints:
        for epoch in range(3):
            checkpoints.keep(epoch)  # type: ignore[arg-type]
        assert journal.written == []
        journal.may.set()
    assert journal.written == [0]


@pytest.mark.parametrize(("seconds", "end"), [(0, SystemExit), (HOUR, Terminated)])
def test_an_error_of_the_writer_reaches_the_training(seconds: float, end: Any) -> None:
    full = Journal(OSError("full"))
    full.may.set()
    with pytest.raises(OSError, match="full"):
        train(full, seconds, end)


def test_a_snapshot_keeps_what_training_changes() -> None:
    layer = torch.nn.BatchNorm1d(2)
    states = {"state": layer.state_dict(), "more": [torch.zeros(3, 2).t(), (1, None)]}
    snapshot = Snapshot(states, torch.device("cpu"))
    for tensor in (*layer.state_dict().values(), states["more"][0]):
        tensor.add_(1)
    kept = snapshot.on_host()
    assert kept["state"]["weight"].tolist() == [1, 1] and kept["state"]._metadata == layer.state_dict()._metadata
    assert kept["more"][0].stride() == (1, 2) and kept["more"][0].sum() == 0 and kept["more"][1] == (1, None)
