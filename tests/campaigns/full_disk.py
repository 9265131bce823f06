"""A disk that is full at any place: one line and code 2, and with room the same command gives the same predictions.

Half of the runs write to a small file system of their own (a tmpfs, which only root can mount), so that writing fails
with ENOSPC and may be short; it grows for the second run. The others, all of them where nothing can be mounted, may not
let a file grow beyond a size (RLIMIT_FSIZE); every second of these starts from decoded images and a finished trial.
"""

import random
import resource
import shutil
import signal
import subprocess
from pathlib import Path

from common import SMALL, campaign, ended, predictions, trained

ONE = [*SMALL, "--epochs", "2", "--trials", "1", "--method", "rs"]
BOTH = [*ONE, "ce"]
LARGEST, PIXELS, DISK = 5.5e6, 20e6, 16e6
"""Bytes: of a file of a trial, of the file of pixels, and that all need together at once."""


def limited(size: int) -> None:
    """Let no file of this process grow beyond a size; writing more is an error, not a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def mounted(folder: Path, size: float) -> bool:
    """Mount a file system of a size, or give the one there this size; return whether that was possible."""
    folder.mkdir(exist_ok=True)
    how = f"{'remount,' * folder.is_mount()}size={int(size)}"
    command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def attempt(out: Path, size: float, expected: dict[str, bytes], disk: bool) -> tuple[bool, list[str]]:
    """Run in little room, then in enough; return whether the first run was refused, and what was wrong."""
    before = predictions(out)
    code, text = ended(BOTH, out, (lambda: None) if disk else (lambda: limited(int(size))))
    found, faults = predictions(out), []
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if (code, len(lines)) not in ((0, 0), (2, 1)) or "Traceback" in text:
        faults.append(f"code {code}, {text[-400:]}")
    if not before.items() <= found.items() <= expected.items() or (code == 0 and found != expected):
        faults.append(f"code {code}: predictions are lost, or others")
    if disk:
        mounted(out, 1 << 30)
    again, text = ended(BOTH, out)
    if again or predictions(out) != expected:
        faults.append(f"again: code {again}, {text[-400:]}")
    return code != 0, [f"{size:.0f} bytes{' in all' * disk}: {fault}" for fault in faults]


def attempts(folder: Path, _: random.Random, number: int) -> tuple[int, list[str]]:
    """Run on disks and with limits of growing sizes."""
    faults, refused, disks = [], 0, 0
    begun, expected = trained(ONE, folder / "begun"), predictions(trained(BOTH, folder / "whole"))
    for place in range(number):
        out, share = folder / f"full{place}", ((place + 1) / number) ** 2
        disk = place % 2 == 0 and mounted(out, 4096 + share * DISK)
        if not disk and place % 4 == 3:
            shutil.copytree(begun, out)
        size = share * (DISK if disk else LARGEST if place % 4 == 3 else PIXELS)
        try:
            failed, own = attempt(out, size, expected, disk)
        finally:
            if disk:
                subprocess.run(["umount", "-l", str(out)], check=True)
        shutil.rmtree(out)
        faults, refused, disks = [*faults, *own], refused + failed, disks + disk
    print(f"{refused} of {number} runs met the limit; {disks} runs were on a file system of their own")
    return number, faults


if __name__ == "__main__":
    campaign(__doc__, 100, "0 silent changes of predictions", attempts)
