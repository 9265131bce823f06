"""The parts of the pages that the code knows, written while the site is built: MkDocs calls the functions `on_*`.

A line `<!-- generated: NAME -->` of a page becomes what `GENERATORS[NAME]` returns, and each registered method and
dataset gets a page. Nothing of this is committed, so adding a method touches no page.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_MARK = re.compile(r"^<!-- generated: (\w+)(?: (\S+))? -->$", re.MULTILINE)
_TOPIC = re.compile(r"^((?:Defaults|Differs|Options|Avoided here)[^:]*:)")
_ITEM = re.compile(r"(?:\d+\.|-) ")
_WIDTH = 82  # characters of a line of code that fit on a page
_SECTIONS = ("Attributes", "Parameters", "Raises", "Examples", "Returns", "Yields", "Notes")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the generated pages in the navigation."""
    for entry in config.nav or []:
        for section in ("methods", "datasets"):
            for pages in entry.values():
                if isinstance(pages, list) and f"{section}/index.md" in pages:
                    pages += [{name: f"{section}/{name}.md"} for name in _registered(section)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each method and each dataset."""
    from mkdocs.structure.files import File

    for section, page in (("methods", method_page), ("datasets", dataset_page)):
        for name in _registered(section):
            files.append(File.generated(config, f"{section}/{name}.md", content=page(name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """Return a page with its marks replaced by what they name."""

    def replacement(match: re.Match[str]) -> str:
        name, argument = match.groups()
        return GENERATORS[name](argument) if argument else GENERATORS[name]()

    return _MARK.sub(replacement, markdown)


def method_page(name: str) -> str:
    """Return the page of a method: what it is, what it costs, its docstring and its hyper-parameters."""
    from ltbench.benchmarks.cli.listing import HYPERPARAMETER_HEADERS, hooks_of, hyperparameter_rows
    from ltbench.methods import registry

    facts = {**registry.details(name), "Hooks": _code(hooks_of(name)) or "none", "File": f"`methods/{name}.py`"}
    rows = hyperparameter_rows(name)
    return "\n\n".join(
        [
            f"# {name}",
            _idea(registry.summary(name)),
            _table(["", ""], facts.items()),
            "## Description",
            _body(registry.docstring(name), registry.details(name)),
            "## Hyper-parameters",
            _table(HYPERPARAMETER_HEADERS, rows, code=(0,)) if rows else "None.",
            f"```sh\npython benchmarks/run.py --method {name} --ratio 100\n```",
        ]
    )


def dataset_page(name: str) -> str:
    """Return the page of a dataset: its docstring, its facts and its options."""
    from ltbench.benchmarks.cli.dataset_info import OPTION_HEADERS, option_rows
    from ltbench.datasets import registry

    dataset = registry.get(name)
    default = {
        "Split": dataset.default_split,
        "Ratio": dataset.default_ratio,
        "Images of the largest class": dataset.default_n_max,
        "Validation images a class": dataset.default_val_per_class or "a tenth of each class",
        "Test images a class": dataset.default_test_per_class or "a fifth of each class",
        "Preset": dataset.preset,
    }
    facts = {**registry.details(name), "Citation": dataset.citation, "Website": dataset.website}
    options = [[f"`{option}`", *texts] for option, *texts in option_rows(name)]
    return "\n\n".join(
        [
            f"# {name}",
            _idea(registry.summary(name)),
            _table(["", ""], [(key, text) for key, text in facts.items() if text]),
            _body(registry.docstring(name), registry.details(name)),
            *(["## Options", _table(OPTION_HEADERS, options)] if options else []),
            "## Defaults",
            _table(["", ""], default.items()),
        ]
    )


def methods() -> str:
    """Return the table of methods: name, idea, cost, status."""
    from ltbench.methods import registry

    rows = []
    for name in registry.available():
        details = registry.details(name)
        texts = (details.get(key, "").rstrip(".") for key in ("Cost", "Status"))
        rows.append([f"[`{name}`]({name}.md)", _idea(registry.summary(name)), *texts])
    return _table(["name", "idea", "cost", "status"], rows)


def datasets() -> str:
    """Return the table of datasets: name, content, classes, images, licence, how to get it."""
    from ltbench.benchmarks.cli.dataset_info import how_to_get
    from ltbench.datasets import registry

    rows = []
    for name in registry.available():
        dataset = registry.get(name)
        images = sum((dataset.expected_counts or {}).values())
        licence = registry.details(name).get("Licence", "").rstrip(".")
        classes = len(getattr(dataset, "class_names", ())) or ""
        what = _idea(registry.summary(name))
        rows.append(
            [f"[`{name}`]({name}.md)", what, classes, f"{images:,}" if images else "", licence, how_to_get(name)]
        )
    return _table(["name", "content", "classes", "images", "licence", "how to get it"], rows)


def presets() -> str:
    """Return the table of presets: every field of the protocol by preset."""
    from ltbench.benchmarks.training.protocol import PRESETS

    names = [field.name for field in dataclasses.fields(next(iter(PRESETS.values()))) if field.name != "augmentation"]
    rows = [[f"`{name}`", *(_value(getattr(preset, name)) for preset in PRESETS.values())] for name in names]
    return _table(["field", *(f"`{preset}`" for preset in PRESETS)], rows)


def commands() -> str:
    """Return the help text of every command and of its subcommands."""
    os.environ["COLUMNS"] = str(_WIDTH)
    parts = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        module = importlib.import_module(f"ltbench.benchmarks.{path.stem}")
        if hasattr(module, "parser"):
            parser = module.parser()
            parts.append(f"## {path.stem}\n\n{_help(parser, path.stem)}")
            parts += [f"### {name}\n\n{_help(each, name)}" for name, each in _subparsers(parser, path.stem)]
    return "\n\n".join(parts)


def _help(parser: argparse.ArgumentParser, name: str) -> str:
    parser.prog = f"ltbench {name}"
    return f"```text\n{parser.format_help()}```"


def hooks() -> str:
    """Return the table of a method's hooks, in the order in which the trainer meets them."""
    from ltbench.methods import HOOKS
    from ltbench.methods.base import Method

    rows = []
    for name in HOOKS:
        hook = getattr(Method, name)
        arguments = ", ".join(each for each in inspect.signature(hook).parameters if each not in ("self", "cls"))
        rows.append([f"`{name}({arguments})`", " ".join(_paragraphs(inspect.getdoc(hook) or "")[0].split())])
    return _table(["hook", "what it does"], rows)


def fields(target: str) -> str:
    """Return the table of the documented attributes of a class, `module:name`."""
    documented = _entries(inspect.getdoc(_object(target)) or "", ("Attributes", "Parameters"))
    return _table(["name", "meaning"], [[_code(name.split(", ")), text] for name, text in documented])


def api(target: str) -> str:
    """Return a public class or function, `module:name`: signature, first paragraph, parameters, public methods."""
    found = _object(target)
    parts = [_described(f"{target.partition(':')[2]}", found)]
    if inspect.isclass(found):
        for name, member in vars(found).items():
            if not name.startswith("_") and inspect.isfunction(member) and inspect.getdoc(member):
                parts.append(_described(f"{found.__name__}.{name}", member))
    return "\n\n".join(parts)


def notebook(name: str) -> str:
    """Return a notebook's cells as Markdown."""
    parts = []
    for cell in json.loads((DOCS / name).read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"]).strip()
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else re.sub(r"^# .*\n?", "", text))
    return "\n\n".join(parts)


GENERATORS: dict[str, Callable[..., str]] = {
    each.__name__: each for each in (methods, datasets, presets, commands, hooks, fields, api, notebook)
}


def to_markdown(docstring: str) -> str:
    """Return a docstring as Python-Markdown wants it: what belongs to a list item indented by 4, blanks between.

    Examples
    --------
    >>> print(to_markdown("1. Plain\\n   text."))
    1. Plain
        text.
    """
    lines: list[str] = []
    width = 0  # of the marker of the list item that the lines belong to; 0: none
    for line in docstring.splitlines():
        marker, text = _ITEM.match(line), line.strip()
        indent = len(line) - len(line.lstrip())
        if (marker or _TOPIC.match(line)) and lines and lines[-1]:
            lines.append("")
        if marker:
            width = marker.end()
        elif text and indent < width:
            width = 0
        elif width and text:
            line = " " * (8 if indent >= width + 4 else 4) + text
        lines.append(_TOPIC.sub(r"**\1**", line))
    return "\n".join(lines)


def _registered(section: str) -> list[str]:
    return importlib.import_module(f"ltbench.{section}").registry.available()


def _body(docstring: str, facts: Iterable[str]) -> str:
    """Return a docstring without its first line and its lines of facts."""
    _, *lines = docstring.splitlines()
    kept = [line for line in lines if line.partition(": ")[0] not in facts]
    return to_markdown("\n".join(kept)).strip("\n")


def _idea(summary: str) -> str:
    """Return a summary without the name that it begins with.

    Examples
    --------
    >>> _idea("CE: plain cross-entropy.")
    'Plain cross-entropy.'
    """
    text = summary.partition(": ")[2] or summary
    return text[:1].upper() + text[1:]


def _described(title: str, found: Any) -> str:
    doc = inspect.getdoc(found) or ""
    summary = "\n\n".join(_prose(doc))
    signature = f"{title}{_signature(found)}"
    parameters = _entries(doc, ("Attributes", "Parameters"))
    parts = [f"### {title}", f"```python\n{signature}\n```", summary]
    if parameters:
        parts.append(_table(["", ""], [[_code(name.split(", ")), text] for name, text in parameters]))
    return "\n\n".join(parts)


def _signature(found: Any) -> str:
    """Return parameters and defaults, in one line or, where they are many, one a line."""
    signature = inspect.signature(found)
    parameters = [_parameter(each) for each in signature.parameters.values() if each.name not in ("self", "cls")]
    named = signature.return_annotation
    returns = "" if inspect.isclass(found) or named is inspect.Signature.empty else f" -> {_annotation(named)}"
    text = f"({', '.join(parameters)}){returns}"
    return text if len(text) <= _WIDTH else "(\n" + "".join(f"    {each},\n" for each in parameters) + f"){returns}"


def _parameter(parameter: inspect.Parameter) -> str:
    prefix = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
    text = f"{prefix}{parameter.name}"
    if parameter.annotation is not inspect.Parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is inspect.Parameter.empty:
        return text
    made = dataclasses.is_dataclass(parameter.default) or "factory" in repr(parameter.default)
    return f"{text} = {'...' if made else re.sub(r'(Posix|Windows)Path', 'Path', repr(parameter.default))}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _prose(doc: str) -> Iterator[str]:
    """Yield a docstring's paragraphs before its first section."""
    for paragraph in _paragraphs(doc):
        if paragraph.partition("\n")[0] in _SECTIONS:
            return
        yield paragraph


def _entries(doc: str, sections: Sequence[str]) -> list[tuple[str, str]]:
    """Return what a docstring's sections list: (names, text)."""
    entries: list[list[str]] = []
    inside, lines = False, doc.splitlines()
    for number, line in enumerate(lines):
        if line in _SECTIONS and number + 1 < len(lines) and set(lines[number + 1]) == {"-"}:
            inside = line in sections
        elif inside and line.startswith("    ") and entries:
            entries[-1][1] += f" {line.strip()}"
        elif inside and (parts := line.partition(" : "))[1]:
            entries.append([parts[0], parts[2]])
    return [(name, text) for name, text in entries]


def _object(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _subparsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice, subparser in action.choices.items():
                yield f"{name} {choice}", subparser


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _value(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]], code: Sequence[int] = ()) -> str:
    lines = [headers, ["---"] * len(headers)]
    for row in rows:
        lines.append([f"`{cell}`" if number in code else _escaped(str(cell)) for number, cell in enumerate(row)])
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    """Return text whose bars do not end a cell, with angle brackets outside code that are no tags."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("|", "&#124;") for part in parts[::2]]
    return "`".join(parts)
