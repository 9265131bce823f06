"""Versions of code and libraries, which are to be the same wherever trials of one command run."""

from __future__ import annotations

from collections.abc import Mapping

from ltbench.benchmarks.training.trial import code_version, library_versions
from ltbench.errors import UserError


def installed_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, that of ltbench with its commit."""
    return {"ltbench": code_version(), **library_versions()}


def require_same_versions(nodes: Mapping[str, Mapping[str, str]], wanted: Mapping[str, str]) -> None:
    """Refuse machines that would run other code.

    Parameters
    ----------
    nodes : versions by package, by the name of the machine
    wanted : versions by package

    Raises
    ------
    UserError : naming the first machine and package that differ
    """
    for node, versions in nodes.items():
        for package, version in wanted.items():
            if versions.get(package) != version:
                raise UserError(
                    f"machine {node} has {package} {versions.get(package)}, that of the planning {version}; "
                    "install the same versions on all machines"
                )
