"""Registries of plug-ins: one file is one entry, found by its name and imported only when asked for.

Entries come from files of the suite's own package, from files that a user names (`load_plugin`), and from installed
packages, by an entry point whose group is the registry's package:

    [project.entry-points."ltbench.methods"]
    margin = "my_package.margin"
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from ltbench.errors import UserError
from ltbench.plugin_sources import class_digest, module_file, source_digest, source_files

Entry = TypeVar("Entry", bound=type)

_DETAIL = re.compile(r"^(Source|Size|Cost|Networks|Neutral|Status|Licence): (.+)$", re.MULTILINE)
_DECORATOR = re.compile(r"^@register\(\s*[\"']([^\"']+)[\"']\s*\)", re.MULTILINE)

_PLUGIN = "ltbench_plugin_"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that nobody knows, with a known one that contains it as a word, else the nearest.

    Examples
    --------
    >>> unknown("method", "lda", ["ce", "ldam"])
    UserError("unknown method 'lda'; did you mean 'ldam'? known: ce, ldam")
    """
    known = list(known)
    by_lower_case = {each.lower(): each for each in known}
    word = re.compile(rf"\b{re.escape(name.lower())}\b")
    near = [each for each in by_lower_case if name and word.search(each)]
    near = near or difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower_case[near[0]]!r}?" if near else ";"
    return UserError(f"unknown {kind} {name!r}{hint} known: {', '.join(known)}")


class Registry(Generic[Entry]):
    """Plug-ins of one kind: the files of a package, files registered from outside, and those of installed packages.

    A file of the package is an entry when it decorates a class with `@register("<file stem>")`. Nothing is
    imported to list the names or their first docstring lines; `get` imports the one file that is asked for.

    Parameters
    ----------
    kind : what an entry is called in messages, e.g. `"method"`
    package : the package whose files are entries, e.g. `"ltbench.methods"`
    folder : the folder of that package
    """

    def __init__(self, kind: str, package: str, folder: Path) -> None:
        self.kind = kind
        self._package = package
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._plugins: dict[str, Path] = {}
        self._digests: dict[str, str | None] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return the class decorator that enters a class under `name`.

        Raises
        ------
        UserError : the name is taken, or a file of the package registers another name than its own
        """

        def enter(entry: Entry) -> Entry:
            module = entry.__module__
            if module.startswith(self._package + "."):
                if module.rpartition(".")[2] != name:
                    raise UserError(f"{module} registers the {self.kind} {name!r}; file and name must be the same")
            else:
                path = Path(getattr(sys.modules[module], "__file__", None) or module)
                offered = self._installed().get(name)
                foreign = offered is not None and _package(offered.module) != _package(module)
                if foreign or name in self._builtin() or self._loaded_plugins().get(name, path) != path:
                    raise UserError(f"plug-in {path} registers the taken {self.kind} name {name!r}; rename it")
                self._plugins[name] = path
                self._digests[name] = source_digest(module) or class_digest(entry)
            entry.name = name  # type: ignore[attr-defined]  # declared by the base class of each kind
            self._entries[name] = entry
            return entry

        return enter

    def available(self) -> list[str]:
        """Return all registered names, sorted; imports nothing.

        Raises
        ------
        UserError : an installed package offers a taken name
        """
        return sorted({*self._builtin(), *self._loaded_plugins(), *self._installed()})

    def get(self, name: str) -> Entry:
        """Return the class registered under `name`, importing its file if need be.

        Raises
        ------
        UserError : unknown name, or the package that offers it cannot be imported
        """
        if name not in self._entries or self._entries[name].__module__ not in sys.modules:
            if name in self._builtin():
                importlib.import_module(f"{self._package}.{name}")
            elif name in self._installed():
                self._load_installed(name)
            else:
                raise unknown(self.kind, name, self.available())
        return self._entries[name]

    def is_portable(self, name: str) -> bool:
        """Return whether another process finds what is registered, by itself or by the file of a plug-in."""
        return self.get(name).__module__.startswith(_PLUGIN) or name in self._builtin() or name in self._installed()

    def summary(self, name: str) -> str:
        """Return the first line of the docstring of the file that holds `name`; imports nothing."""
        return self.docstring(name).partition("\n")[0]

    def docstring(self, name: str) -> str:
        """Return the docstring of the file that holds `name`; imports nothing."""
        return ast.get_docstring(self._tree(name)) or ""

    def details(self, name: str) -> dict[str, str]:
        """Return the lines of its docstring that state a fact, such as `Source: ...` or `Size: ...`, by their name."""
        return dict(_DETAIL.findall(self.docstring(name)))

    def definitions(self, name: str) -> list[str]:
        """Return the names of the functions that the class registered as `name` defines itself; imports nothing."""
        for node in ast.walk(self._tree(name)):
            if isinstance(node, ast.ClassDef) and any(_registers(each, name) for each in node.decorator_list):
                return [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
        return []

    def _tree(self, name: str) -> ast.Module:
        source = self._plugins.get(name) or self._builtin().get(name)
        if source is None:
            if name not in self._installed():
                raise unknown(self.kind, name, self.available())
            source = module_file(self._installed()[name].module)
        # A class that a notebook registers has no file.
        return ast.parse(source.read_text(encoding="utf-8") if source.is_file() else "")

    def source_digest(self, name: str) -> str | None:
        """Return the SHA-256 of a plug-in's files when it was registered, None for an entry of the package itself.

        Its files are its own and those beside it that it imports; see `ltbench.plugin_sources`.
        """
        return self._digests.get(name)

    def modules(self, name: str) -> set[str]:
        """Return the modules outside the package that define the class loaded under `name`, or one that it extends."""
        bases = self._entries[name].__mro__ if name in self._entries else ()
        known = {each.__module__ for each in bases if not each.__module__.startswith(("ltbench.", "torch."))}
        return known - {"builtins", "abc", "typing"}

    def files(self, name: str) -> list[Path]:
        """Return the files of the plug-in loaded under `name`; none for an entry of the package itself."""
        return [path for module in self.modules(name) for path in source_files(module).values()]

    def _loaded_plugins(self) -> dict[str, Path]:
        """Return the plug-ins whose import went through: one that failed is no longer among the modules."""
        return {name: path for name, path in self._plugins.items() if self._entries[name].__module__ in sys.modules}

    def _installed(self) -> dict[str, EntryPoint]:
        """Return what installed packages offer, by name; imports none of them."""
        found: dict[str, EntryPoint] = {}
        points = entry_points(group=self._package)
        taken = self._builtin() if points else {}
        for point in points:
            if point.name in taken or found.get(point.name, point).value != point.value:
                raise UserError(
                    f"the installed package {_distribution(point)} offers the taken {self.kind} name {point.name!r}; "
                    "uninstall it, or rename what it offers"
                )
            found[point.name] = point
        return found

    def _load_installed(self, name: str) -> None:
        point = self._installed()[name]
        offered = f"{self.kind} {name!r} of the installed package {_distribution(point)}"
        try:
            importlib.import_module(point.module)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # a plug-in may fail in any way
            raise UserError(f"{offered} fails on import: {type(error).__name__}: {error}") from error
        if name not in self._entries:
            raise UserError(f"{offered}: {point.module} does not register it; decorate its class with @register")

    def _builtin(self) -> dict[str, Path]:
        found = {}
        for path in sorted(self._folder.glob("*.py")):
            if path.stem in _DECORATOR.findall(path.read_text(encoding="utf-8")):
                found[path.stem] = path
        return found


def _package(module: str) -> str:
    return module.partition(".")[0]


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _registers(decorator: ast.expr, name: str) -> bool:
    """Return whether a decorator is `register("<name>")`."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func).rpartition(".")[2] != "register":
        return False
    return any(isinstance(value, ast.Constant) and value.value == name for value in decorator.args)


def plugin_file(entry: type) -> Path | None:
    """Return the file that a class was loaded from by `load_plugin`, None for any other class.

    Another process must load that file before it can unpickle an object of the class.
    """
    file = getattr(sys.modules.get(entry.__module__), "__file__", None)
    return Path(file) if entry.__module__.startswith(_PLUGIN) and file else None


def load_plugin(path: Path) -> None:
    """Import a file from outside the repository; its `@register` decorators enter what it holds.

    Raises
    ------
    UserError : the file is missing, fails on import, registers nothing or a taken name
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UserError(f"plug-in file {path} does not exist or is no regular file")
    module_name = f"{_PLUGIN}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in file {path} is not a Python file (*.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
        own = (each for each in vars(module).values() if getattr(each, "__module__", "") == module_name)
        if not any("name" in vars(each) for each in own if isinstance(each, type)):  # which registering sets
            raise UserError(f"plug-in {path} registers no method or dataset; decorate a class with @register")
    except UserError:
        del sys.modules[module_name]
        raise
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way; the user gets its file and its reason
        del sys.modules[module_name]
        where = _line_of(path, error)
        raise UserError(f"plug-in {path} fails on import: {type(error).__name__}: {error}{where}") from error


def _line_of(path: Path, error: BaseException) -> str:
    """Return where in a file an error arose, " (line N)", or nothing where it is not known."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""
