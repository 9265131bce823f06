"""The one exception that means: the user can fix this; and the line for what the operating system refused."""

from __future__ import annotations

import errno


class UserError(ValueError):
    """Bad input or a bad environment: one line that says what, got, allowed and what to do.

    The command line prints the message on one line of stderr and exits with code 2; a program that uses
    ltbench as a library catches it as a `ValueError`.
    """


def os_error_line(error: OSError) -> str:
    """Return what the operating system refused, on which file, and what to do."""
    where = f": {error.filename}" if error.filename else ""
    advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "fix it"
    return f"{error.strerror or error}{where}; {advice} and run the same command again, what is done is kept"
