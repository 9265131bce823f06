"""What there is to choose from, read from the files that hold it: methods, datasets, presets."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ltbench.benchmarks.cli.markdown import github_table
from ltbench.options import allowed, shown

HYPERPARAMETER_HEADERS = ("--set", "default", "range", "values to try", "source")


def listing() -> str:
    """Return methods, datasets and presets, each with what its docstring says of source, cost or licence."""
    from ltbench.benchmarks.training.protocol import PRESET_SUMMARIES
    from ltbench.datasets import registry as datasets
    from ltbench.methods import registry as methods

    lines = ["methods (explained by --list NAME):"]
    for name in methods.available():
        lines.append(f"  {name:<17}{methods.summary(name)}")
        rows = {**methods.details(name), "Hooks": ", ".join(hooks_of(name)) or "none"}
        lines += [f"{'':<19}{key.lower()}: {text}" for key, text in rows.items()]
    lines.append("datasets:")
    for name in datasets.available():
        lines.append(f"  {name:<17}{datasets.summary(name)}")
        lines += [f"{'':<19}{key.lower()}: {text}" for key, text in datasets.details(name).items()]
    lines.append("presets:")
    lines += [f"  {name:<17}{summary}" for name, summary in PRESET_SUMMARIES.items()]
    return "\n".join(lines)


def hooks_of(name: str) -> list[str]:
    """Return the hooks of the trainer that a method overrides, as its file has them."""
    from ltbench.methods import HOOKS, registry

    defined = set(registry.definitions(name))
    return [hook for hook in HOOKS if hook in defined]


def describe_method(name: str) -> str:
    """Return a method's docstring and its hyper-parameters: default, other presets, range, values to try, source.

    Raises
    ------
    UserError : unknown method
    """
    from ltbench.methods import registry

    rows = hyperparameter_rows(name)
    table = github_table(rows, HYPERPARAMETER_HEADERS) if rows else ""
    return f"{name}\n{'=' * len(name)}\n{registry.docstring(name)}" + (f"\n\n{table}" if table else "")


def hyperparameter_rows(name: str) -> list[list[str]]:
    """Return a method's hyper-parameters, a row each, in the columns of `HYPERPARAMETER_HEADERS`.

    Raises
    ------
    UserError : unknown method
    """
    from ltbench.methods import registry

    return [_row(field) for field in fields(registry.get(name).Config)]


def _row(field: Any) -> list[str]:
    metadata = field.metadata
    default = shown(field.default)
    default += "".join(f" ({preset}: {shown(value)})" for preset, value in metadata.get("presets", {}).items())
    tried = ", ".join(map(shown, metadata.get("sweep") or ()))
    return [f"{field.name}=", default, allowed(field), tried, metadata.get("source", "")]
