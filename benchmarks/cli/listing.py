"""What there is to choose from, read from the files that hold it: methods, datasets, presets.

python -m ltbench.benchmarks.cli.listing        the README's table of methods
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tabulate import tabulate

STATUSES = ("verified against the original code", "from the paper", "our reading")


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


def methods_table() -> str:
    """Return the methods as a Markdown table: name, idea, source, hooks, cost, status."""
    from ltbench.methods import registry

    rows = [["name", "idea", "source", "hooks", "cost", "status"], ["---"] * 6]
    for name in registry.available():
        details = registry.details(name)
        idea = registry.summary(name).partition(": ")[2].rstrip(".")
        source, cost, status = (details.get(key, "").rstrip(".") for key in ("Source", "Cost", "Status"))
        hooks = ", ".join(f"`{hook}`" for hook in hooks_of(name)) or "none"
        rows.append([f"`{name}`", idea, source, hooks, cost, status])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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

    declared = [_row(field) for field in fields(registry.get(name).Config)]
    headers = ["--set", "default", "range", "values to try", "source"]
    table = tabulate(declared, headers=headers, tablefmt="github", disable_numparse=True) if declared else ""
    return f"{name}\n{'=' * len(name)}\n{registry.docstring(name)}" + (f"\n\n{table}" if table else "")


def _row(field: Any) -> list[str]:
    metadata = field.metadata
    default = _text(field.default)
    default += "".join(f" ({preset}: {_text(value)})" for preset, value in metadata.get("presets", {}).items())
    low, high = metadata.get("low"), metadata.get("high")
    bounds = f"{'' if low is None else f'{low:g}'} .. {'' if high is None else f'{high:g}'}".strip()
    allowed = bounds if low is not None or high is not None else str(field.type)
    tried = ", ".join(map(_text, metadata.get("sweep") or ()))
    return [f"{field.name}=", default, allowed.replace("Literal", ""), tried, metadata.get("source", "")]


def _text(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(methods_table())
