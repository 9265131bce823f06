"""What a trial that fails leaves behind: its traceback, and where in a plug-in it arose."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

from ltbench.benchmarks.training.trial import TRACEBACK
from ltbench.files import write_bytes
from ltbench.methods import registry

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def keep_traceback(folder: Path, error: BaseException) -> Path:
    """Write the traceback of an error into the folder of its trial; return the file."""
    path = folder / TRACEBACK
    write_bytes(path, "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
    return path


def plugin_line(method: str, error: BaseException) -> str | None:
    """Return `file:line in function` of the innermost frame in the files of a plug-in, None without one.

    An error of the operating system counts only where the method itself raised it: a full disk is not its fault.
    """
    files, modules = {str(path) for path in registry.files(method)}, registry.modules(method)
    found, innermost = None, False
    for frame, line in traceback.walk_tb(error.__traceback__):
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name in modules or str(Path(file).resolve()) in files:
            found, innermost = f"{file}:{line} in {frame.f_code.co_name}", True
        elif name.startswith("ltbench."):
            innermost = False
    if isinstance(error, OSError) and (not innermost or error.errno in _DISK_FULL):
        return None
    return found
