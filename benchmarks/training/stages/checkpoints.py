"""When checkpoints of a stage in progress are written, and that training does not wait for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ltbench.benchmarks.training.journal import Checkpoint, Journal
from ltbench.errors import Terminated
from ltbench.files import Pace

_STOPS = (KeyboardInterrupt, Terminated)


class Checkpoints:
    """Keeps the newest state of a stage in memory, and writes it once in a while, in a thread beside training.

    As a context manager: where Ctrl-C or SIGTERM ends training, the newest state is written; in any case what is being
    written is waited for, and an error of it, such as a full disk, is raised in the thread that trains.

    Parameters
    ----------
    journal : what they are written to
    position : of the stage
    seconds : the least time between two checkpoints; 0: one after every epoch, before training goes on
    """

    def __init__(self, journal: Journal, position: int, seconds: float) -> None:
        self._journal, self._position, self._waits = journal, position, seconds == 0
        self._pace = Pace(seconds)
        self._newest: Checkpoint | None = None  # that is not being written
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._wait()
            if kind is not None and issubclass(kind, _STOPS):
                self._begin()
                self._wait()
        finally:
            self._thread.shutdown()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Take the state after an epoch; write it where that is due.

        Raises
        ------
        OSError : what was being written could not be, by the disk
        """
        self._newest = checkpoint
        if self._writing is not None and self._writing.done():
            self._wait()
        if self._pace.due:
            self._wait()  # one write at a time
            self._begin()
            self._pace.restart()
        if self._waits:
            self._wait()

    def _begin(self) -> None:
        if self._newest is not None:
            self._writing = self._thread.submit(self._journal.save_checkpoint, self._position, self._newest)
            self._newest = None

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None
