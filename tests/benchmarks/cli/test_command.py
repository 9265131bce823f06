"""One command line for all commands: what it answers at once."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ltbench
from ltbench import methods
from ltbench.benchmarks import run
from ltbench.benchmarks.cli.arguments import request_from
from ltbench.benchmarks.cli.command import COMMANDS, guarded, main

PROGRAM = """
import contextlib, sys
from ltbench.benchmarks.cli.command import main
for line in sys.stdin.read().splitlines():
    with contextlib.suppress(SystemExit):
        main(line.split())
sys.exit(", ".join({"torch", "timm", "pandas", "sklearn", "matplotlib", "wandb", "yaml"} & set(sys.modules)) or 0)
"""


def test_help_and_lists_import_nothing_heavy() -> None:
    lines = "\n".join(["--help", "--version", "run --list", *(f"{name} --help" for name in COMMANDS)])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: ltbench {name} [-h]" in done.stdout for name in COMMANDS)
    assert all(f"\n  {name} " in done.stdout for name in (*methods.available(), "synthetic", "isic2019", "paper"))


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, used in ({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"):
        monkeypatch.setattr(os, "environ", dict(given))
        assert guarded(lambda: 0) == 0 and os.environ["OMP_WAIT_POLICY"] == used


def test_what_is_no_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runn"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'runn'; did you mean 'run'?")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ltbench {ltbench.__version__}\n"


@pytest.mark.parametrize(
    "line",
    [
        *[f"{name} --out=" for name in ("run", "report", "figures", "leaderboard")],
        *["run --save-config link", "run --save-config .", "data audit --json link", "data audit --json pipe"],
        *[
            "run --epochs 1000000000000",
            "run --image-size 1000000",
            "run --config deep.json",
            *["report --results deep.json", "run --config pipe", "data audit csv --data-root pipes"],
        ],
        *["throughput --threads 100000", "throughput --scale nothing", "throughput --steps 1000000000"],
    ],
)
def test_what_cannot_be_meant_is_refused(line: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "deep.json").write_text("[" * 10**5)
    (tmp_path / "link").symlink_to("deep.json")
    (tmp_path / "pipes").mkdir()
    for pipe in ("pipe", "pipes/table.csv"):
        os.mkfifo(tmp_path / pipe)
    refuses(main, [*line.split(), *(["--dataset", "synthetic"] if line.startswith("run") else [])], "")


@pytest.mark.parametrize("error", [None, SystemError("of a library")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_program_whatever_a_library_makes_of_it(
    number: int, code: int, error: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> int:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
            time.sleep(10)
        if error is not None:
            raise error
        return 0

    assert guarded(body) == code and len(capsys.readouterr().err.split()) == 1


def test_earlier_spellings_of_starting_weights_are_understood() -> None:
    spelled = {"--pretrained": "timm", "--no-pretrained": "none", "--weights=timm:a1_in1k": "timm:a1_in1k"}
    for option, weights in spelled.items():
        assert request_from(run.parser().parse_args([option])).protocol == {"weights": weights}


def test_a_stream_that_was_closed_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    with io.StringIO() as closed:
        monkeypatch.setattr(sys, "stdout", closed)
    assert guarded(lambda: print("a table") or 0) == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("line", ["--version", "data --help", "run --help", "run --list"])
def test_a_reader_that_is_gone_ends_a_program_in_silence(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = f"from ltbench.benchmarks.cli.command import program; program({line.split()})"
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_thread_that_a_plugin_leaves_does_not_keep_the_program() -> None:
    program = (
        "import threading, time\nfrom ltbench.benchmarks.cli import command\ncommand._THREAD_SECONDS = 0.1\n"
        "threading.Thread(target=time.sleep, args=(50,)).start()\ncommand.program(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=True)
    assert done.stdout.startswith("ltbench ") and "threads still run" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_signs_that_a_stream_cannot_show_become_ascii(encoding: str) -> None:
    printed = r"Δ ±1 ≈ 中 \x1b[2Ja\x9bb\u202e"
    program = f"from ltbench.benchmarks.cli.command import guarded; guarded(lambda: print('{printed}') or 0)"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=True)
    signs = ["d", "+/-1" if encoding == "ascii" else "±1", "~", "?", r"\x1b[2Ja\x9bb\u202e"]
    assert done.stdout.decode(encoding).split() == signs


def test_commands_work_without_docstrings_and_without_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-c", "import sys; sys.stderr = None\n" + PROGRAM],
        **{"input": "\n".join(["runn", *(f"{name} --help" for name in COMMANDS)]), "text": True, "timeout": 60},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert all(f"usage: ltbench {name}" in done.stdout for name in COMMANDS)
