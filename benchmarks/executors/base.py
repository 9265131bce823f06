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
    deferred : whether the trials run after the command has ended
    """

    name: ClassVar[str]
    deferred: ClassVar[bool] = False

    def __init__(self, planned: Plan, address: str = "") -> None:
        self.planned, self.address = planned, address

    @classmethod
    def check_address(cls, address: str) -> None:
        """Refuse an address that trials cannot be sent to, by default each.

        Raises
        ------
        UserError : what to give instead
        """
        raise UserError(f"--executor {cls.name} takes no address, got {address!r}; give --executor {cls.name}")

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
    """Refuse `NAME` of an executor that there is not, and `NAME:ADDRESS` that cannot be used.

    All but the default are imported, which tells that a package is missing before any data is read.

    Raises
    ------
    UserError : with the nearest known name, about the address, or a package that the executor needs is missing
    """
    name, colon, address = text.partition(":")
    if name not in registry.available():
        raise unknown("executor", name, registry.available())
    if text != "local":
        executor = registry.get(name)
        if colon:
            executor.check_address(address)


def executor_of(planned: Plan) -> Executor:
    """Return the executor that a plan's request names: `NAME` or `NAME:ADDRESS`.

    Raises
    ------
    UserError : as `check_executor`, or a package that it needs is missing
    """
    check_executor(planned.request.executor)
    name, _, address = planned.request.executor.partition(":")
    return registry.get(name)(planned, address)
