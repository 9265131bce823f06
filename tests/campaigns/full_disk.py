"""A disk that is full after so many bytes of a file: the same command, run again with room, gives the same predictions.

The limit is that of the operating system on the size of a file (RLIMIT_FSIZE), in a process of its own.
"""

import os
import resource
import signal
import subprocess
import sys

from common import SMALL, called, options, temporary_folder, verdict
from kill import predictions

from ltbench.benchmarks import run


def limited(size: int) -> None:
    """Let no file of this process grow beyond a size; writing more is an error, not a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 100)
    faults, refused = [], 0
    arguments = [*SMALL, "--method", "ce", "--epochs", "2", "--trials", "1", "--jobs", "1"]
    with temporary_folder() as folder:
        code, _, errors = called(run.main, [*arguments, "--out", str(folder / "whole")])
        if code:
            raise RuntimeError(errors)
        expected = predictions(folder / "whole")
        largest = max(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
        for number in range(wanted.number):
            out, size = folder / f"full{number}", 1 + int(1.05 * largest * (number / wanted.number) ** 2)
            command = [sys.executable, "-m", "ltbench", "run", *arguments, "--out", str(out)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, preexec_fn=lambda size=size: limited(size)
            )
            refused += done.returncode != 0
            if "Traceback" in done.stderr or (done.returncode == 0 and predictions(out) != expected):
                faults.append(f"{size} bytes: code {done.returncode}, {done.stderr[-300:]}")
            code, _, errors = called(run.main, [*arguments, "--out", str(out)])
            if code or predictions(out) != expected:
                faults.append(f"{size} bytes, again: code {code}, {errors[-300:]}")
    print(f"{refused} of {wanted.number} runs met the limit")
    return verdict(wanted.number, faults, "0 silent changes of predictions")


if __name__ == "__main__":
    sys.exit(main())
