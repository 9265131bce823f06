"""`--budget total`: all stages of a method within the optimizer steps that one training of `ce` may take."""

from __future__ import annotations

from dataclasses import replace

from ltbench.benchmarks.training.protocol import Protocol
from ltbench.errors import UserError
from ltbench.methods._pretraining import initial_stage
from ltbench.methods.base import Method, Run
from ltbench.methods.contract import Contract
from ltbench.methods.stages import Stage


def shared_encoder(method: Method, run: Run, protocol: Protocol, budget: StepBudget | None) -> Stage | None:
    """Return the stage of the encoder that all methods of a trial start from, if there is one.

    With a budget, the run has the epochs afterwards with which all stages of the method fit.

    Raises
    ------
    UserError : the stages of the method do not fit
    """
    initial = initial_stage(protocol.init, protocol.preset, method, run)
    if budget is not None:
        if initial is not None:
            initial = replace(initial, epochs=budget.shortened(initial))
        budget.share_out(method, initial)
    return initial


def budget_of(protocol: Protocol, run: Run) -> StepBudget | None:
    """Return the budget of a trial; None where preparatory and second stages are extra."""
    return StepBudget(run) if protocol.budget == "total" else None


class StepBudget:
    """The optimizer steps that a trial may take: those of the protocol's epochs on all training images.

    Parameters
    ----------
    run : of the trial, with the protocol's epochs
    """

    def __init__(self, run: Run) -> None:
        self._run, self.left = run, run.steps(run.epochs)

    def shortened(self, initial: Stage) -> int:
        """Return the epochs of the shared encoder: what it asks for, at most as many as take half of the steps."""
        one = self._run.steps(1, initial.batch_size)
        return min(initial.epochs, max(1, self.left // 2 // one))

    def share_out(self, method: Method, initial: Stage | None) -> None:
        """Set the run's epochs to the most with which all stages of the method fit, after the shared encoder's.

        Methods give their stages shares of `run.epochs`, so that one factor scales them all.

        Raises
        ------
        UserError : they do not fit at one epoch
        """
        before = 0 if initial is None else self._run.steps(initial.epochs, initial.batch_size)
        for epochs in range(self._run.epochs, 0, -1):
            self._run.epochs = epochs
            least = before + Contract.of(method).steps(method.most_steps(self._run))
            if least <= self.left:
                return
        raise UserError(
            f"{method.name} needs at least {least} optimizer steps, --budget total gives {self.left}; "
            "give more --epochs, or leave the method out"
        )

    def require(self, method: Method, stage: Stage) -> None:
        """Refuse a stage that might take more steps than are left.

        Raises
        ------
        UserError : the method's `most_steps` gives less than its stages take
        """
        most = self._run.steps(stage.epochs, stage.batch_size)
        if most > self.left:
            raise UserError(
                f"stage {stage.name!r} of {method.name} may take {most} optimizer steps, --budget total leaves "
                f"{self.left}; its hook most_steps must return the steps of all stages"
            )

    def spend(self, steps: int) -> None:
        """Count the steps of a stage that has ended."""
        self.left -= steps
