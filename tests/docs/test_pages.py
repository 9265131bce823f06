"""What readers of the pages paste works: commands parse, plug-ins train, generated pages hold what the code says."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ltbench
from ltbench import datasets, methods
from ltbench.benchmarks import run
from ltbench.methods import checks

ROOT = Path(ltbench.__file__).parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TINY = ["--ratio", "20", "--image-size", "16", "--epochs", "1", "--trials", "1", "--jobs", "1"]
TINY += ["--n-max", "60", "--val-per-class", "4", "--test-per-class", "5", "--device", "cpu"]
_PASSES_ON = ("sweep", "reproduce")  # commands whose further options are those of run


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def command_lines(page: Path) -> list[list[str]]:
    """Return the calls of our commands in a page's shell blocks: name, arguments."""
    found = []
    for line in "".join(blocks(page, "sh")).splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if len(words) > 1 and words[0] == "python" and words[1].startswith("benchmarks/"):
                found.append([Path(words[1]).stem, *words[2:]])
            elif words[:1] == ["ltbench"] and len(words) > 1 and words[1] != "--version":
                found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_understood(page: Path) -> None:
    for name, *arguments in command_lines(page):
        parser = importlib.import_module(f"ltbench.benchmarks.{name}").parser()
        if name in _PASSES_ON:
            _, rest = parser.parse_known_args(arguments)
            run.parser().parse_args(rest)
        else:
            parser.parse_args(arguments)


def test_the_readme_is_short_and_there_are_commands_to_check() -> None:
    assert sum(len(command_lines(page)) for page in PAGES) > 30
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not _is_there(link)] == []


def test_files_named_in_the_code_are_there() -> None:
    room = r"`((?:benchmarks|datasets|docs|losses|methods|samplers|tests)/[\w/.-]+)`"
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for package in ("benchmarks", "datasets", "losses", "methods", "samplers")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(room, path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert [each for each in sorted(named) if not (ROOT / each[1]).exists()] == []


def _is_there(link: str) -> bool:
    """Return whether a link names a file, or a page that is generated."""
    path = ROOT / link
    return path.exists() or (path.parent.name == "methods" and path.stem in methods.available())


@pytest.mark.parametrize("name", methods.available())
def test_every_method_has_a_page_with_its_hyper_parameters(name: str, generated: ModuleType) -> None:
    page = generated.method_page(name)
    assert page.startswith(f"# {name}\n") and methods.registry.details(name)["Status"] in page
    for field in methods.registry.get(name).Config.__dataclass_fields__:
        assert f"`{field}=`" in page
    assert f"[`{name}`]({name}.md)" in generated.methods()


@pytest.mark.parametrize("name", datasets.available())
def test_every_dataset_has_a_page(name: str, generated: ModuleType) -> None:
    assert datasets.registry.details(name)["Licence"] in generated.dataset_page(name)
    assert f"[`{name}`]({name}.md)" in generated.datasets()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_marks_are_replaced(page: Path, generated: ModuleType) -> None:
    assert "<!-- generated" not in generated.filled(page.read_text(encoding="utf-8"))


def test_plugins_of_the_pages_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, names = ROOT / "docs" / "extending.md", ("margin", "brier")
    arguments = ["--method", *names, "--set", "brier.scale=2", *TINY, "--out", str(tmp_path / "results")]
    for name in names:
        (code,) = (block for block in blocks(page, "python") if f'@register("{name}")' in block)
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        arguments += ["--plugin", str(tmp_path / f"{name}.py")]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checks, "_check_trials", lambda *_: None)
    try:
        assert run.main(arguments) == 0
        others = [code for code in blocks(page, "python") if "@register(" not in code]
        (tmp_path / "pasted_from_the_page.py").write_text("\n".join(others), encoding="utf-8")
        importlib.import_module("pasted_from_the_page").test_margin()
    finally:
        for module in [key for key in sys.modules if key.startswith("ltbench_plugin_") or key == "margin"]:
            del sys.modules[module]
    printed = capsys.readouterr().out
    assert "| margin " in printed and "| brier (scale=2.0) " in printed
