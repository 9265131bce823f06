"""Imports point one way: between the packages, between the rooms of the commands, and never in a circle of files."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ltbench

ROOT = Path(ltbench.__file__).parent
PACKAGES = {
    "benchmarks": {"methods", "losses", "samplers", "datasets"},
    "methods": {"losses", "samplers"},
    "losses": set(),
    "samplers": set(),
    "datasets": set(),
}
"""Packages, and which others each may import; all may import the files beside them, which import none of them."""

DOORS = {"ltbench", "ltbench.__main__", "ltbench.methods.checks"}
"""Where programs and authors of plug-ins come in: above all others, which take the version alone from them."""

ABOVE = {"ltbench.methods.checks"}
"""What an author runs on a method: it trains it, and nothing imports it."""

ROOMS = ("commands", "cli", "serving", "publishing", "executors", "training", "pages", "plots", "analysis")
"""Of `benchmarks`, each of which may import those behind it."""


def modules() -> dict[str, Path]:
    paths = [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    places = {path: ("ltbench", *path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in places.items()}


def import_nodes(node: ast.AST, facade: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield imports, those inside functions too, and those for type checkers.

    Parameters
    ----------
    facade : whether the file is a package's own: it names for type checkers what it imports when it is asked for
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    if not (facade and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from import_nodes(child, facade)


@cache
def graph() -> dict[str, set[str]]:
    """Return which modules of the package each of them imports, but for the doors."""
    known, found = modules(), {}
    for module, path in known.items():
        names: set[str] = set()
        for node in import_nodes(ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py"):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
                continue
            assert node.level == 0 and node.module, f"{path}: imports are absolute"
            submodules = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in submodules.values()}
        assert not {name.partition(".")[0] for name in names} & PACKAGES.keys(), f"{path}: an import without ltbench"
        assert names & DOORS <= {"ltbench"}, f"{path} imports a door"
        found[module] = (names & known.keys()) - {module} - DOORS
    return {module: names for module, names in found.items() if module not in DOORS}


def package_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") and module.split(".")[1] in PACKAGES else ""


def room_of(module: str) -> str:
    parts = module.split(".")[2:]
    return parts[0] if parts and parts[0] in ROOMS else "commands"


def test_no_circle_of_files() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_packages_and_rooms_point_one_way() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in graph().items()
        for name in names
        if name in ABOVE or module not in ABOVE
        if name in ABOVE or package_of(name) not in {"", package_of(module), *PACKAGES.get(package_of(module), ())}
    ]
    assert not wrong
    own = {module: names for module, names in graph().items() if package_of(module) == "benchmarks"}
    assert {room_of(module) for module in own} == set(ROOMS)
    wrong = [
        f"{module} imports {name}"
        for module, names in own.items()
        for name in names
        if package_of(name) == "benchmarks" and ROOMS.index(room_of(name)) < ROOMS.index(room_of(module))
    ]
    assert not wrong


def test_training_draws_no_page_and_analysis_no_picture() -> None:
    rooms = {
        (room_of(module), room_of(name))
        for module, names in graph().items()
        for name in names
        if package_of(module) == package_of(name) == "benchmarks"
    }
    assert ("training", "pages") not in rooms
    assert {name for room, name in rooms if room == "analysis"} == {"analysis"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_has_more_than_fifteen_modules(package: str) -> None:
    most = 15
    folders = {path.parent for path in (ROOT / package).rglob("*.py")} - {ROOT / "benchmarks", ROOT / "methods"}
    sizes = {folder: len([path for path in folder.glob("*.py") if path.stem != "__init__"]) for folder in folders}
    assert not {folder.name: size for folder, size in sizes.items() if size > most}


PLOTS = sorted(path.stem for path in (ROOT / "benchmarks" / "plots").glob("[a-z]*.py"))
LATE = {
    "ltbench": "numpy torch ltbench.benchmarks",
    "ltbench.benchmarks.report, ltbench.benchmarks.pages.page": "matplotlib pandas numpy torch",
    "ltbench.benchmarks.figures, " + ", ".join(f"ltbench.benchmarks.plots.{name}" for name in PLOTS): "matplotlib",
    "ltbench.benchmarks.run, ltbench.benchmarks.training.wandb_mirror": "wandb matplotlib",
    "ltbench.benchmarks.training.wandb_run": "wandb matplotlib",
    "ltbench.datasets.sources.digits": "sklearn",
}


@pytest.mark.parametrize("modules", LATE)
def test_what_is_slow_is_imported_where_it_is_used(modules: str) -> None:
    program = f"import sys, {modules}; print(set({LATE[modules].split()}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
