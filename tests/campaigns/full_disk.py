"""A disk that is full at any place: one line and code 2, and with room the same command gives the same predictions.

Half of the runs write to a small file system of their own (a tmpfs, which only root can mount), so that writing fails
with ENOSPC and may be short; it grows for the second run. The others, all of them where nothing can be mounted, may not
let a file grow beyond a size (RLIMIT_FSIZE): every second of these starts from decoded images and a finished trial.
"""

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from common import SMALL, ended, options, predictions, temporary_folder, verdict

ARGUMENTS = [*SMALL, "--epochs", "2", "--trials", "1", "--jobs", "1"]
LARGEST, PIXELS, DISK = 5.5e6, 20e6, 16e6
"""Bytes: of a file of a trial, of the file of pixels, and that all need together at once."""


def limited(size: int) -> None:
    """Let no file of this process grow beyond a size; writing more is an error, not a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def mounted(folder: Path, size: int) -> bool:
    """Mount a file system of a size, or give the one there this size; return whether that was possible."""
    folder.mkdir(exist_ok=True)
    how = [f"remount,size={size}"] if folder.is_mount() else [f"size={size}"]
    command = ["mount", "-t", "tmpfs", "-o", *how, "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def wrong(code: int, text: str, expected: dict[str, bytes], found: dict[str, bytes]) -> str:
    """Return what is wrong with the end of a run on a full disk; empty where nothing is."""
    if any(expected.get(name) != array for name, array in found.items()):
        return f"other predictions, code {code}"
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if code == 0:
        return "" if found == expected else "predictions are missing, code 0"
    return "" if (code, len(lines)) == (2, 1) and "Traceback" not in text else f"code {code}, {text[-400:]}"


def attempt(out: Path, size: int, expected: dict[str, bytes], disk: bool) -> tuple[bool, list[str]]:
    """Run in little room, then in enough; return whether the first run was refused, and what was wrong."""
    arguments = [*ARGUMENTS, "--method", "ce", "rs", "--out", str(out)]
    before = predictions(out)
    code, text = ended(arguments) if disk else ended(arguments, lambda: limited(size))
    found = predictions(out)
    faults = [fault] if (fault := wrong(code, text, expected, found)) else []
    faults += [] if before.items() <= found.items() else ["a finished trial was lost"]
    if disk:
        mounted(out, 1 << 30)
    again, text = ended(arguments)
    if again or predictions(out) != expected:
        faults.append(f"again: code {again}, {text[-400:]}")
    return code != 0, [f"{size} bytes{' in all' * disk}: {fault}" for fault in faults]


def main() -> int:
    """Run the campaign; return 0 if its goal is reached."""
    wanted = options(__doc__, 100)
    faults, refused, disks = [], 0, 0
    with temporary_folder() as folder:
        whole, begun = folder / "whole", folder / "begun"
        for out, method in ((begun, ["rs"]), (whole, ["ce", "rs"])):
            code, text = ended([*ARGUMENTS, "--method", *method, "--out", str(out)])
            if code:
                raise RuntimeError(text)
        expected = predictions(whole)
        for number in range(wanted.number):
            out, share = folder / f"full{number}", ((number + 1) / wanted.number) ** 2
            disk = number % 2 == 0 and mounted(out, 4096 + int(share * DISK))
            if not disk and number % 4 == 3:
                shutil.copytree(begun, out)
            size = int(share * (DISK if disk else LARGEST if number % 4 == 3 else PIXELS))
            try:
                failed, own = attempt(out, size, expected, disk)
            finally:
                if disk:
                    subprocess.run(["umount", "-l", str(out)], check=True)
            shutil.rmtree(out)
            faults, refused, disks = [*faults, *own], refused + failed, disks + disk
    print(f"{refused} of {wanted.number} runs met the limit; {disks} runs were on a file system of their own")
    return verdict(wanted.number, faults, "0 silent changes of predictions")


if __name__ == "__main__":
    sys.exit(main())
