"""What of a record contradicts the rest of it: values among each other, and metrics the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltbench.errors import UserError
from ltbench.files import plain

_AGREEMENT = 1e-6


def class_contradiction(
    names: Sequence[str], counts: Sequence[int], groups: Mapping[str, Sequence[int]], special: Sequence[str]
) -> str:
    """Return what contradicts itself in what a record says of its classes; empty where nothing does.

    Parameters
    ----------
    names, counts : by class id
    groups : class ids of head, medium and tail
    special : names of the classes of special interest
    """
    if len(set(names)) < len(names) or len(counts) != len(names):
        return f"{len(set(names))} class_names, {len(counts)} class_counts"
    if not set(range(len(names))).issuperset(member for members in groups.values() for member in members):
        return f"groups name classes beyond the {len(names)} of class_names"
    return "" if set(special) <= set(names) else "special_classes that are no class_names"


def change_contradiction(changed: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return which of the changed hyper-parameters is not among all of them; empty where each is."""
    other = [name for name, value in changed.items() if name not in values or values[name] != value]
    return f"changed {other[0]} is not that of hyperparameters" if other else ""


def require_agreement(folder: Path, part: str, stated: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Check the metrics that a result states of a part against those of its predictions.

    Raises
    ------
    UserError : they contradict each other, naming the folder
    """
    for name, own in plain(measured).items():
        if name != "undefined" and not _agree(stated.get(name, own), own):
            raise UserError(
                f"{folder}: predictions.npz gives a {part} {name} of {own}, result.json says {stated[name]}; "
                "run the trial again with --fresh"
            )


def _agree(stated: Any, own: Any) -> bool:
    """Return whether two numbers, or nested lists of them, are the same but for rounding."""
    if isinstance(own, list):
        return isinstance(stated, list) and len(stated) == len(own) and all(map(_agree, stated, own))
    if isinstance(own, int | float) and isinstance(stated, int | float):
        return abs(stated - own) <= _AGREEMENT
    return stated is own
