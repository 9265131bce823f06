"""Registries and plug-in files; and what holds for every file of the repository."""

import ast
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ltbench
from ltbench import datasets, methods
from ltbench.errors import UserError
from ltbench.registry import Registry, load_plugin, unknown

ROOT = Path(ltbench.__file__).parent
PLUGIN = '''"""{summary}"""

from ltbench.methods import register
from ltbench.methods.base import Method


@register("{name}")
class Plugged(Method):
    """As the base class."""
'''


def plugin(folder: Path, name: str, text: str = PLUGIN, file: str = "mine.py") -> Path:
    path = folder / file
    path.write_text(text.format(name=name, summary=f"{name}: a plug-in."))
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that installs a package with one module, which an entry point offers as a method."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(package: str, name: str, text: str = PLUGIN) -> None:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        plugin(tmp_path / package, name, text)
        about = tmp_path / f"{package}-1.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n")
        (about / "entry_points.txt").write_text(f"[ltbench.methods]\n{name} = {package}.mine\n")

    yield put
    for module in [each for each in sys.modules if each.startswith("ltbench_extra")]:
        del sys.modules[module]


def test_a_method_of_an_installed_package_is_listed_without_its_import_and_then_loaded(install: Any) -> None:
    install("ltbench_extra", "extra")
    assert "extra" in methods.available() and methods.registry.summary("extra") == "extra: a plug-in."
    assert "ltbench_extra" not in sys.modules
    assert methods.registry.get("extra").__name__ == "Plugged"
    assert methods.registry.source_digest("extra") is not None


def test_what_is_wrong_with_an_installed_package_is_one_line(install: Any, tmp_path: Path) -> None:
    install("ltbench_extra", "extra", "raise ValueError('oops')")
    with pytest.raises(UserError, match=r"'extra' of the installed package ltbench_extra 1.5 fails on import: Value"):
        methods.registry.get("extra")
    install("ltbench_extra2", "silent", "")
    with pytest.raises(UserError, match=r"ltbench_extra2.mine does not register it"):
        methods.registry.get("silent")
    with pytest.raises(UserError, match="taken method name 'silent'"):
        load_plugin(plugin(tmp_path, "silent"))
    install("ltbench_extra3", "ce")
    with pytest.raises(UserError, match=r"installed package ltbench_extra3 1\.5 offers the taken method name 'ce'"):
        methods.available()
    shutil.rmtree(tmp_path / "ltbench_extra3-1.5.dist-info")


@pytest.mark.parametrize("package", ["methods", "datasets"])
def test_names_are_known_without_importing_torch(package: str) -> None:
    program = (
        f"import sys; from ltbench import {package} as p; names = p.available(); p.registry.summary(names[0]); "
        "print(*names); sys.exit(bool({'torch', 'pandas', 'sklearn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == {"methods": methods, "datasets": datasets}[package].available()


def test_unknown_names_get_the_nearest() -> None:
    message = r"unknown method 'flexx'; did you mean 'flex'\? known: .*ce"
    for ask in (methods.registry.get, methods.registry.summary):
        with pytest.raises(UserError, match=message):
            ask("flexx")
    assert str(unknown("thing", "zzz", iter(["ab", "cd"]))) == "unknown thing 'zzz'; known: ab, cd"


def test_plugins_from_files(tmp_path: Path) -> None:
    path = plugin(tmp_path, "mine-own")
    load_plugin(path)
    load_plugin(path)
    assert "mine-own" in methods.available()
    assert methods.registry.get("mine-own").__name__ == "Plugged"
    assert methods.registry.summary("mine-own") == "mine-own: a plug-in."
    assert methods.registry.source_digest("mine-own") == hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        load_plugin(plugin(tmp_path / name, name))
    assert {"first", "second"} <= set(methods.available())


def test_the_digest_of_a_plugin_is_of_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helper").mkdir()
    texts = {"mine.py": PLUGIN + "\nfrom helper import inner", "helper/inner.py": "from . import deep"}
    texts |= {"helper/deep.py": "", "other.py": ""}
    digests = {}
    for changed in ("", *texts):
        for file, text in texts.items():
            plugin(tmp_path, "helped", text + "\n# changed" * (file == changed), file)
        load_plugin(tmp_path / "mine.py")
        digests[changed] = methods.registry.source_digest("helped")
        del sys.modules[methods.registry.get("helped").__module__]
    assert digests[""] == digests["other.py"] and len(set(digests.values())) == 4


def test_a_plugin_may_not_take_a_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.py registers the taken method name 'ce'"):
        load_plugin(plugin(tmp_path, "ce"))
    assert methods.registry.get("ce").__name__ == "CrossEntropy"
    load_plugin(plugin(tmp_path, "mine"))
    with pytest.raises(UserError, match=r"other\.py registers the taken method name 'mine'"):
        load_plugin(plugin(tmp_path, "mine", file="other.py"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        (PLUGIN + "\n1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_plugin_is_named(tmp_path: Path, text: str, reason: str) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=rf"mine\.py fails on import: {reason}"):
            load_plugin(plugin(tmp_path, "mine", text))
        assert "mine" not in methods.available()


def test_a_file_that_registers_nothing_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"mine\.py registers no method or dataset; decorate a class"):
            load_plugin(plugin(tmp_path, "mine", PLUGIN.replace('@register("{name}")', "")))
    load_plugin(plugin(tmp_path, "mine"))
    assert "mine" in methods.available()
    with pytest.raises(UserError, match=r"nothing\.py does not exist"):
        load_plugin(tmp_path / "nothing.py")
    with pytest.raises(UserError, match="does not exist"):
        load_plugin(tmp_path)
    with pytest.raises(UserError, match=r"mine\.txt is not a Python file"):
        load_plugin(plugin(tmp_path, "mine", file="mine.txt"))


def test_a_file_of_the_package_registers_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toy_things"
    package.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    setup = "from pathlib import Path\nfrom ltbench.registry import Registry\n"
    setup += "registry = Registry('thing', __name__, Path(__file__).parent)\nregister = registry.register\n"
    (package / "__init__.py").write_text(setup)
    for stem, name in (("good", "good"), ("bad", "other")):
        text = f"from toy_things import register\n\n\n@register('{name}')\nclass Thing:\n    pass\n"
        (package / f"{stem}.py").write_text(text)
    from toy_things import registry

    assert isinstance(registry, Registry) and registry.available() == ["good"]
    assert registry.get("good").name == "good"
    with pytest.raises(UserError, match=r"toy_things\.bad registers the thing 'other'; file and name"):
        import toy_things.bad  # noqa: F401


PACKAGES = ("benchmarks", "methods", "losses", "samplers", "datasets")


def sources() -> list[Path]:
    folders = [*PACKAGES, "tests"]
    return sorted([*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))])


every_source = pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names that a file imports, also inside functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@every_source
def test_nothing_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [name for name in imported(tree) if name.endswith(".*")]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{path.name}:{node.lineno}"
        assert called not in ("eval", "exec", "pickle.load", "pickle.Unpickler", "joblib.load"), where
        assert called != "torch.load" or options.get("weights_only") == "True", where
        if not path.is_relative_to(ROOT / "tests"):  # tests write what is to be refused
            assert called != "pickle.loads" and options.get("allow_pickle", "False") == "False", where
        assert options.get("shell", "False") == "False", where


@every_source
def test_functions_fit_on_a_screen(path: Path) -> None:
    long = [
        f"{path.name}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert not long
