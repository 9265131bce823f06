"""Ways in which a file comes back from a bad disk, a full one or another program."""

from __future__ import annotations

from collections.abc import Callable


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle + 20 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "halved": lambda data: data[: len(data) // 2],
    "flipped": _flipped,
    "garbage": lambda data: b"\x93 not what it seems \xff\x00" * 30,
    "text": lambda data: b"hello\n",
    "zeros": lambda data: bytes(len(data)),
}
