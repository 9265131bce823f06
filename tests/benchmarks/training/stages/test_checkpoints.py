"""When a checkpoint is written, where, and who hears of an error."""

import threading
from typing import Any

import pytest
import torch

from ltbench.benchmarks.training.stages.checkpoints import Checkpoints
from ltbench.benchmarks.training.stages.snapshots import Snapshot
from ltbench.errors import Terminated

HOUR = 3600.0


class Journal:
    """Notes which checkpoints are written, waits until it may, and fails where it shall."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[Any] = []
        self.may, self.error = threading.Event(), error
        self.may.set()

    def save_checkpoint(self, position: int, checkpoint: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert self.may.wait(10)
        if self.error:
            raise self.error
        self.written.append(checkpoint)


def train(seconds: float, epochs: int, end: type[BaseException] | None = None, **journal: Any) -> list[Any]:
    written = Journal(**journal)
    try:
        with Checkpoints(written, 0, seconds) as checkpoints:  # type: ignore[arg-type]
            for epoch in range(epochs):
                checkpoints.keep(epoch)  # type: ignore[arg-type]
            if end is not None:
                raise end
    except BaseException as error:
        if type(error) is not end:
            raise
    return written.written


@pytest.mark.parametrize(
    ("seconds", "end", "expected"),
    [
        (0, None, [0, 1, 2]),
        (HOUR, None, []),
        (HOUR, ValueError, []),
        (HOUR, Terminated, [2]),
        (HOUR, KeyboardInterrupt, [2]),
        (0, Terminated, [0, 1, 2]),
    ],
)
def test_checkpoints_come_by_time_and_at_a_signal(seconds: float, end: Any, expected: list[int]) -> None:
    assert train(seconds, 3, end) == expected
    assert train(seconds, 0, end) == []


@pytest.mark.parametrize(("seconds", "end"), [(0, None), (1e-9, None), (HOUR, Terminated)])
def test_an_error_of_the_writer_reaches_the_training(seconds: float, end: Any) -> None:
    with pytest.raises(OSError, match="full"):
        train(seconds, 3, end, error=OSError("full"))


def test_training_goes_on_while_one_checkpoint_is_written() -> None:
    journal = Journal()
    journal.may.clear()
    with Checkpoints(journal, 0, 0.05) as checkpoints:  # type: ignore[arg-type]
        checkpoints._pace._since -= 1
        checkpoints.keep("a")  # type: ignore[arg-type]
        checkpoints.keep("b")  # type: ignore[arg-type]
        assert journal.written == []
        journal.may.set()
    assert journal.written == ["a"]


def test_a_snapshot_keeps_what_training_changes() -> None:
    layer = torch.nn.BatchNorm1d(2)
    states = {"state": layer.state_dict(), "more": [torch.zeros(3, 2).t(), (1, None)]}
    snapshot = Snapshot(states, torch.device("cpu"))
    with torch.no_grad():
        layer.weight.zero_()
        states["more"][0].add_(1)
    kept = snapshot.on_host()
    assert kept["state"]["weight"].tolist() == [1, 1] and kept["state"]._metadata == layer.state_dict()._metadata
    assert kept["more"][0].stride() == (1, 2) and kept["more"][0].sum() == 0 and kept["more"][1] == (1, None)
