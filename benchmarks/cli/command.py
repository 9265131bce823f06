"""The command line of all programs, `ltbench COMMAND ...`: one line for what the user can fix, exit codes, signals."""

from __future__ import annotations

import argparse
import codecs
import errno
import importlib
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from ltbench.benchmarks.analysis.rendering import in_ascii
from ltbench.errors import Terminated, UserError, in_one_line, os_error_line

EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE, EXIT_TERMINATED = 2, 130, 141, 143

_STOPPED: dict[int, tuple[str, int]] = {
    signal.SIGINT: ("interrupted", EXIT_INTERRUPTED),
    signal.SIGTERM: ("terminated", EXIT_TERMINATED),
}

COMMANDS = {
    "run": "train methods on a long-tailed dataset, then print the leaderboard",
    "leaderboard": "tables of finished trials",
    "advise": "which method to take, and what finished trials leave open",
    "report": "one HTML page with all tables and pictures of a results folder",
    "figures": "pictures of finished trials as PNG and SVG",
    "reproduce": "run what a table of the paper needs, then print that table",
    "predict": "probabilities of new images by a trained network",
    "export": "a trained network as ONNX, TorchScript, safetensors or a folder for timm",
    "publish": "boards: published results to verify, extend and train again",
    "sweep": "a grid or a search of hyper-parameters, as a W&B sweep or here",
    "data": "datasets: list, info, download, verify, audit",
    "throughput": "speed of this machine",
    "coverage": "a simulation of the error bars",
}
"""Every command, a module of `ltbench.benchmarks`, and what it does."""


def about(docstring: str | None, command: str, *, whole: bool = False) -> str:
    """Return what `--help` says of a command: the first line of its file, or all; without docstrings, `COMMANDS`."""
    text = docstring or COMMANDS[command]
    return text if whole else text.partition("\n")[0]


class Parser(argparse.ArgumentParser):
    """Reports a bad argument as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


def named_path(text: str) -> Path:
    """Return the path that an argument names; an empty one, as of a variable that is not set, would be this folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(text)


def new_file(text: str) -> Path:
    """Return the path that an argument names, of a file to write; see `require_writable`."""
    out = named_path(text)
    try:
        require_writable(out)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return out


def require_writable(out: Path) -> None:
    """Refuse at once what would be refused after minutes of work.

    Raises
    ------
    UserError : something else than a file is there, or its folder cannot be written to
    """
    from ltbench.files import require_replaceable

    require_replaceable(out)
    nearest = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {out}: {nearest} is no folder that is writable; give another name")


_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_THREAD_SECONDS = 10.0  # that threads have to end after the command
_CURSOR = re.compile(r"\n*(\x1b\[A)*")  # what progress bars write between their lines, by itself


def _escape(sign: re.Match[str]) -> str:
    return sign[0].encode("unicode_escape").decode("ascii")


class _ReaderGone(BrokenPipeError):
    """Who reads what this process prints has ended, as `head` does."""


class _Shown:
    """A stream that shows control characters, which a name may hold, as `\\x1b` instead of sending them to a terminal.

    Parameters
    ----------
    stream : the text stream that everything else is left to
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self._stream.closed:
            raise OSError(errno.EBADF, "the output was closed by what ran here, a plug-in for example")
        with self._discarding():
            return self._stream.write(text if _CURSOR.fullmatch(text) else _CONTROLS.sub(_escape, text))

    def flush(self) -> None:
        if self._gone:  # also where the error of `write` was swallowed, as argparse does
            raise _ReaderGone
        if not self._stream.closed:
            with self._discarding():
                self._stream.flush()

    @contextmanager
    def _discarding(self) -> Iterator[None]:
        """Where nobody reads the stream any more, let what is left go nowhere: Python flushes it at the end."""
        try:
            yield
        except BrokenPipeError as error:
            self._gone = True
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            raise _ReaderGone(*error.args) from error

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def _streams() -> Iterator[None]:
    """Let every text be printed, and none act on a terminal; nothing is printed where there is no stream."""
    _prepare_streams()
    stdout, stderr = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Shown(stdout), _Shown(stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def _prepare_streams() -> None:
    """Let signs that a stream cannot encode be printed in ASCII; open a stream where there is none."""
    codecs.register_error("ltbench.ascii", _in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ltbench.ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def guarded(body: Callable[[], int], *, hint: str = "") -> int:
    """Run a program; return its exit code.

    A `UserError` and an error of the operating system (a full disk, a folder that is not writable) become one line
    on stderr and code 2; Ctrl-C gives 130, SIGTERM 143, with `hint` printed, also where a library that was running
    swallows the exception or raises another one. A closed pipe of stdout or stderr gives 141 in silence.
    """
    _let_threads_sleep()
    with _streams(), _stopping() as arrived:
        try:
            code = _printed(body)
        except (KeyboardInterrupt, Terminated) as stopped:
            arrived = arrived or [signal.SIGTERM if isinstance(stopped, Terminated) else signal.SIGINT]
        except Exception as error:
            if not arrived:
                return _reported(error)
    if not arrived:
        return code
    what, code = _STOPPED[arrived[0]]
    print(f"\n{what}{hint}", file=sys.stderr)
    return code


def _let_threads_sleep() -> None:
    """Let the threads of OpenMP sleep while they wait for each other, here and in the processes that are started.

    torch reads the setting when it is imported. GNU OpenMP spins otherwise: on two cores at load 12, ten steps of a
    small network on two threads took more than a minute, and 0.8 s when they slept. A setting of the user's stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _printed(body: Callable[[], int]) -> int:
    """Run a program and write out what it printed, also before it exits after `--help`; return its exit code."""
    try:
        code = body()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM raise, unless they are ignored; yield the list of those that arrived."""
    arrived: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    previous = {number: signal.getsignal(number) for number in _STOPPED}
    heeded = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}
    for number in heeded:
        signal.signal(number, stop)
    try:
        yield arrived
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def _reported(error: Exception) -> int:
    """Print the line of an error that the user can fix, and return the exit code; raise any other one again."""
    if isinstance(error, _ReaderGone):
        return EXIT_BROKEN_PIPE
    if isinstance(error, UserError):
        print(f"error: {in_one_line(str(error))}", file=sys.stderr)
    elif isinstance(error, OSError):
        print(f"error: {in_one_line(os_error_line(error))}", file=sys.stderr)
    else:
        raise error
    return EXIT_BAD_INPUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> int:
    import ltbench
    from ltbench.registry import unknown

    name, *others = arguments or ["--help"]
    if name in ("-h", "--help"):
        lines = [f"  {command:<13}{what}" for command, what in COMMANDS.items()]
        called = invocation("").rstrip()
        print("\n".join([f"usage: {called} COMMAND ...", "", f"{called} COMMAND --help explains a command:", *lines]))
        return 0
    if name == "--version":
        print(f"ltbench {ltbench.__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return importlib.import_module(f"ltbench.benchmarks.{name}").main(others)


def invocation(name: str) -> str:
    """Return how a command is called from where this process was started: by its file, as a module, or by name."""
    started = Path(sys.argv[0])
    if started.suffix == ".py" and started.parent.name == "benchmarks":
        return f"python {shlex.quote(str(started.with_name(f'{name}.py')))}"
    return f"python -m ltbench {name}" if started.name == "__main__.py" else f"ltbench {name}"


def program(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line of this process and end it, soon also where threads that a plug-in has started go on."""
    code = main(arguments)
    watch = threading.Timer(_THREAD_SECONDS, _end_threads, (code,))
    watch.daemon = True
    watch.start()
    sys.exit(code)


def _end_threads(code: int) -> NoReturn:
    left = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    print(f"threads still run and are ended: {', '.join(left)}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def script(file: str) -> NoReturn:
    """Run the command that a file of `benchmarks/` holds, and end the process."""
    sys.path.pop(0)  # the folder of the file, whose module names are not meant to be top-level ones
    program([Path(file).stem, *sys.argv[1:]])
