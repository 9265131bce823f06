"""The one exception that means: the user can fix this; and how lines for users are worded."""

from __future__ import annotations

import errno
import unicodedata

_UNPRINTABLE = ("Cc", "Cs")
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    errno.EFBIG: "use another file system, or raise the limit of `ulimit -f`",
}
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def in_one_line(text: str) -> str:
    """Return a text that is safe to print: white space is one blank, what a terminal would obey is replaced.

    Examples
    --------
    >>> in_one_line("a\\n b \\x1b[2J")
    'a b \ufffd[2J'
    """
    return "".join(
        "\ufffd"
        if unicodedata.category(sign) in _UNPRINTABLE or unicodedata.bidirectional(sign) in _DIRECTIONS
        else sign
        for sign in " ".join(text.split())
    )


class Terminated(BaseException):
    """SIGTERM arrived."""


class UserError(ValueError):
    """Bad input or a bad environment: one line that says what, got, allowed and what to do.

    The command line prints the message on one line of stderr and exits with code 2; a program that uses
    ltbench as a library catches it as a `ValueError`.
    """


def os_error_line(error: OSError) -> str:
    """Return what the operating system refused, on which file, and what to do."""
    where = f": {error.filename}" if error.filename else ""
    advice = _ADVICE.get(error.errno or 0, "fix it")
    return f"{error.strerror or error}{where}; {advice} and run the same command again, what is done is kept"


def counted(count: int, noun: str) -> str:
    """Return a number of things, in words that agree with it.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "image")
    ('1 image', '2 images')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def at_most(count: int, noun: str) -> str:
    """Return a limit of a number of things, from 1, in words.

    Examples
    --------
    >>> at_most(1, "epoch"), at_most(20, "epoch")
    ('1 epoch', 'at most 20 epochs')
    """
    return counted(count, noun) if count == 1 else f"at most {counted(count, noun)}"
