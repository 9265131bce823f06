"""How a program ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A thread that nobody waits for holds the exit: what runs at exit joins it, as wandb does with its own process.
PROGRAM = """
import atexit, sys, threading, time
from ltbench.benchmarks.cli.command import GIVEN_UP, leave
stuck = threading.Thread(target=time.sleep, args=(60,), daemon=True, name=sys.argv[1] or GIVEN_UP)
stuck.start()
atexit.register(lambda: print("waited") if sys.argv[1] else stuck.join())
print("told", end="")
leave(143)
"""


@pytest.mark.parametrize(("name", "printed"), [("", "told"), ("at work", "toldwaited\n")])
def test_a_thread_that_was_given_up_does_not_hold_the_exit(name: str, printed: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (143, printed, "")
