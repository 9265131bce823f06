"""One command line for all commands: what it answers at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ltbench
from ltbench.benchmarks.cli.command import COMMANDS, main

PROGRAM = """
import contextlib, sys
from ltbench.benchmarks.cli.command import main
for line in sys.stdin.read().splitlines():
    with contextlib.suppress(SystemExit):
        main(line.split())
sys.exit(", ".join({"torch", "timm", "pandas", "sklearn", "matplotlib", "wandb", "yaml"} & set(sys.modules)) or 0)
"""


def test_help_and_lists_import_nothing_heavy() -> None:
    quick = [name for name in COMMANDS if name != "coverage"]  # which is nothing but a computation
    lines = "\n".join(["--help", "--version", "run --list", *(f"{name} --help" for name in quick)])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: ltbench {name} [-h]" in done.stdout for name in quick)
    assert all(f"\n  {name} " in done.stdout for name in ("ce", "rs", "rw", "flex", "synthetic", "isic2019", "paper"))


def test_what_is_no_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runn"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'runn'; did you mean 'run'?")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ltbench {ltbench.__version__}\n"
