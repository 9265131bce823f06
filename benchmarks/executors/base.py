"""What an executor is, and how one is found: by the name that its file registers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ltbench.errors import UserError
from ltbench.registry import Registry, unknown

if TYPE_CHECKING:
    from ltbench.benchmarks.executors.attempts import Outcome
    from ltbench.benchmarks.training.planning.plan import Plan
    from ltbench.benchmarks.training.trial_spec import TrialSpec


class Executor(ABC):
    """Schedules the trials of a plan. It keeps no state: what is done is on disk.

    Parameters
    ----------
    planned : whose trials it gets
    address : what follows its name and a colon, e.g. `HOST:PORT`; empty without

    Attributes
    ----------
    name : that it is registered by
    takes_address : whether there may be an address
    deferred : whether the trials run after the command has ended
    """

    name: ClassVar[str]
    takes_address: ClassVar[bool] = False
    deferred: ClassVar[bool] = False

    def __init__(self, planned: Plan, address: str = "") -> None:
        self.planned, self.address = planned, address

    @abstractmethod
    def outcomes(self, specs: Sequence[TrialSpec]) -> Iterator[Outcome]:
        """Run trials; yield how they ended, as they end.

        Raises
        ------
        UserError : anything that the user can fix and that is no fault of one trial
        """


registry: Registry[type[Executor]] = Registry("executor", "ltbench.benchmarks.executors", Path(__file__).parent)
register = registry.register


def check_executor(text: str) -> None:
    """Refuse the name of an executor that there is not; imports none.

    Raises
    ------
    UserError : with the nearest known name
    """
    if (name := text.partition(":")[0]) not in registry.available():
        raise unknown("executor", name, registry.available())


def executor_of(planned: Plan) -> Executor:
    """Return the executor that a plan's request names: `NAME` or `NAME:ADDRESS`.

    Raises
    ------
    UserError : unknown name, an address for one that takes none, or a package that it needs is missing
    """
    name, colon, address = planned.request.executor.partition(":")
    cls = registry.get(name)
    if colon and (not cls.takes_address or not address):
        wanted = f"{name} or {name}:ADDRESS" if cls.takes_address else name
        raise UserError(f"--executor must be {wanted}, got {planned.request.executor}")
    return cls(planned, address)
