"""A file that a publisher offers: where it is, what is known of it, where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PureWindowsPath
from urllib.parse import urlsplit

from ltbench.datasets.download import archives
from ltbench.errors import UserError


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes
    ----------
    url : http or https
    name : of the file in the root
    size : bytes, None where unknown
    checksum : `md5:...` or `sha256:...`, None where unknown
    unpack : whether it is a zip that is unpacked
    folder : in the root, where it is unpacked; by default the archive's name without its suffixes

    Raises
    ------
    UserError : another scheme than http and https, a name or folder that leaves the root, or an archive that is no .zip
    """

    url: str
    name: str
    size: int | None = None
    checksum: str | None = None
    unpack: bool = False
    folder: str = ""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise UserError(f"{self.url!r} is no http or https address")
        # Windows' rules are the wider ones: drives, and the backslash as a second separator
        if self.name in ("", "..") or PureWindowsPath(self.name).name != self.name:
            raise UserError(f"{self.name!r} is no file name")
        if self.unpack:
            archives.require_zip(self.name)
            object.__setattr__(self, "folder", self.folder or self.name.partition(".")[0])
        folder = PureWindowsPath(self.folder)
        if (self.unpack and not folder.parts) or folder.drive or folder.root or ".." in folder.parts:
            raise UserError(f"{self.folder!r} is no folder in the root")
