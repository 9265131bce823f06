"""What the command-line programs share: one line for what the user can mend, exit codes, signals."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from ltbench.errors import UserError, os_error_line

EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143


class Parser(argparse.ArgumentParser):
    """Reports a bad argument as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`."""
        raise UserError(f"{message}; see {self.prog} --help")


class Terminated(BaseException):
    """SIGTERM arrived."""


def guarded(body: Callable[[], int], *, hint: str = "") -> int:
    """Run a program; return its exit code.

    A `UserError` and an error of the operating system (a full disk, a folder that is not writable) become one line
    on stderr and code 2; Ctrl-C gives 130, SIGTERM 143, with `hint` printed.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return body()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        print(f"error: {os_error_line(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated:
        print(f"\nterminated{hint}", file=sys.stderr)
        return EXIT_TERMINATED
    finally:
        signal.signal(signal.SIGTERM, previous)
    return EXIT_BAD_INPUT


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated
