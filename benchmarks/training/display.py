"""Progress of trials: one bar each on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Protocol as Interface

from tqdm import tqdm

from ltbench.files import Pace
from ltbench.methods.stages import EpochReport


class Display(Interface):
    """Where a trial's progress is shown and lines about it are printed."""

    def stage(self, name: str, epochs: int, done: int) -> None:
        """Announce a stage and how much of it an earlier run has done."""

    def epoch(self, report: EpochReport) -> None:
        """Show a finished epoch."""

    def line(self, text: str) -> None:
        """Print a line about the trial."""


class TrialDisplay:
    """Shows epoch, loss, validation accuracy and time left of one trial.

    Parameters
    ----------
    label : of the trial, e.g. `flex r500 trial 2/5`
    slot : line on the terminal, for trials that run side by side
    """

    def __init__(self, label: str, slot: int = 0) -> None:
        self._label, self._slot = label, slot
        self._bar: tqdm | None = None
        self._epochs = 0
        self._pace = Pace()

    def stage(self, name: str, epochs: int, done: int) -> None:
        """Announce a stage and how much of it an earlier run has done."""
        self._epochs = epochs
        if sys.stderr.isatty():
            self.close()
            description = f"{self._label} [{name}]"
            self._bar = tqdm(total=epochs, initial=done, desc=description, unit="ep", position=self._slot, leave=False)
        elif done:
            self.line(f"{name}: resumed after epoch {done}/{epochs}")

    def epoch(self, report: EpochReport) -> None:
        """Show a finished epoch; plain lines come at most every 20 seconds."""
        text = ", ".join(f"{name} {value:.3f}" for name, value in report.terms.items())
        if report.val_recall is not None:
            text += f", val accuracy {100 * report.score:.1f}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()
        elif self._pace.due:
            self.line(f"{report.stage} epoch {report.epoch + 1}/{self._epochs}: {text}")

    def line(self, text: str) -> None:
        """Print a line about the trial."""
        self._pace.restart()
        tqdm.write(f"{self._label}: {text}", file=sys.stderr)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
