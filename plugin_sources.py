"""The files that a plug-in consists of: its own, and those of the modules beside it that it imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

_OF_EVERY_CLASS = {*vars(type("Empty", (), {})), "__static_attributes__", "__firstlineno__", "__qualname__", "name"}
_INSTALLED = {"site-packages", "dist-packages"}


def source_digest(module: str) -> str | None:
    """Return the SHA-256 of the files of a loaded module, None where it has no file (a notebook, for example).

    That of a single file is the hash of its bytes; of several, that of their hashes by path.
    """
    files = source_files(module)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    if len(hashes) <= 1:
        return next(iter(hashes.values()), None)
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def class_digest(entry: type) -> str:
    """Return a digest of the functions and values of a class, for one that has no file."""
    held = {
        name: code_digest(value.__code__) if isinstance(value, FunctionType) else _value(value)
        for name, value in sorted(vars(entry).items())
        if name not in _OF_EVERY_CLASS
    }
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def code_digest(code: CodeType) -> str:
    """Return a digest of compiled code, nested functions included, without the lines that it stands on."""
    constants = [_constant(each) for each in code.co_consts]
    return hashlib.sha256(repr((code.co_code.hex(), constants, code.co_names)).encode()).hexdigest()


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return code_digest(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _value(value: object) -> str:
    """Return a class by its digest, anything that is no plain value by its type: its text may hold an address."""
    if isinstance(value, type):
        return class_digest(value)
    return repr(value) if isinstance(value, bool | int | float | str | tuple | None) else type(value).__name__


def source_files(module: str) -> dict[str, Path]:
    """Return the file of a loaded module, and those that it imports, by their paths in its folder or its package.

    Imports are read from the text, those inside functions and of imported files too. Files of installed packages count
    where the module is of the same package; those of ltbench never do.

    Parameters
    ----------
    module : name of the module
    """
    own = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    if not own.is_file():
        return {}
    own = own.resolve()
    top = module.partition(".")[0]
    folder = (module_file(top) if top != module else own).resolve().parent
    found: dict[Path, str] = {}
    queue = [(own, module)]
    while queue:
        path, name = queue.pop()
        if path not in found:
            found[path] = path.relative_to(folder).as_posix()
            queue += [(file, each) for each in _imports(path, name) if (file := _beside(each, folder)) is not None]
    return dict(sorted((name, path) for path, name in found.items()))


def module_file(name: str) -> Path:
    """Return the file of a module, importing nothing; of one that is not found, a path where there is none."""
    top, *rest = name.split(".")
    spec = None if top == "__main__" else importlib.util.find_spec(top)
    if spec is None:
        return Path(f"{name}.py")
    if not rest and spec.origin is not None:
        return Path(spec.origin)
    path = Path(next(iter(spec.submodule_search_locations or ()), top)).joinpath(*rest)
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


def _beside(name: str, folder: Path) -> Path | None:
    """Return the file of a module that lies in a folder or below, None for any other."""
    if name.partition(".")[0] == "ltbench":
        return None
    path = module_file(name).resolve()
    if path.suffix != ".py" or not path.is_file() or not path.is_relative_to(folder):
        return None
    return None if _INSTALLED & set(path.relative_to(folder).parts) else path


def _imports(path: Path, module: str) -> Iterator[str]:
    """Yield the names of the modules that a file imports, and of the packages around them."""
    package = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*above, *filter(None, [node.module, alias.name])]) for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1) if parts[0])
