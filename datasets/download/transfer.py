"""Fetch files over HTTP with `pooch`: resumed after a kill, checked before they get their names, refused in one line.

What is not whole yet lies in `.NAME.fetching/`: the bytes in `part`, and in `etag` of which version of the file they
are, so that a resumed download never joins two. `NAME` appears by one rename, after size and checksum were compared.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from requests import exceptions
from urllib3.exceptions import HTTPError

import ltbench
from ltbench.datasets.download import archives
from ltbench.datasets.download.remote import Remote
from ltbench.errors import UserError
from ltbench.files import ProgressLine, amount, file_hash, require_room, synchronize
from ltbench.locks import locked

_TIMEOUT = (15.0, 60.0)  # seconds to connect, and between two packets
_TRIES = 5  # in a row without progress
_PROGRESS = 1 << 20  # bytes that count as progress
_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds; the first doubles with every try
_CHUNK = 1 << 16  # what a broken connection may lose
_MOST_BYTES = 1 << 36  # of a file whose size nobody tells
_LEAST_RATE, _RATE_SECONDS = 1024, 60.0  # bytes a second, and over how many seconds they are counted
_MOST_SECONDS = 48 * 3600.0  # of a whole transfer, pauses included
_NUMBER = re.compile(r"[0-9]{1,15}")
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_AGAIN = "run the same command again, what is there is kept"


def fetch(remote: Remote, root: Path, *, quiet: bool = False) -> Path:
    """Return the file, or the folder of the unpacked archive, after fetching what is not there yet.

    An archive stays beside its folder; where it was deleted after unpacking, it is not fetched again.

    Raises
    ------
    UserError : no connection, an error of the server, a wrong size or checksum, a full disk, or an archive that is
        refused (see `archives.extract`); the message says what to do. Nothing wrong is left under the file's name
    """
    root = Path(root)
    path, folder = root / remote.name, root / remote.folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{remote.name}.lock", f"fetching {remote.name}"):
            if remote.unpack and archives.is_unpacked(folder, remote.name, remote.size):
                return folder
            if os.path.lexists(path):
                _check_existing(remote, path, quiet)
            else:
                _retrieve(remote, path, quiet)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or fix it, and {_AGAIN}"
        ) from error
    return archives.extract(path, folder, quiet=quiet) if remote.unpack else path


def _check_existing(remote: Remote, path: Path, quiet: bool) -> None:
    """Check a file that is there already: it is the user's, so that nothing replaces it."""
    if not path.is_file():
        raise UserError(f"{path} is no file; move it away and run again")
    difference, size = "", path.stat().st_size
    if remote.size not in (None, size):
        difference = f"it has {size} bytes, not {remote.size}"
    elif remote.checksum is not None:
        kind, _, expected = remote.checksum.partition(":")
        with ProgressLine(f"checking {remote.name}", size, quiet=quiet) as progress:
            found = file_hash(path, kind, progress=progress)
        difference = f"its {kind} is {found}, not {expected}" if found != expected.lower() else ""
    if difference:
        raise UserError(f"{path} is not the file of {remote.url}: {difference}; delete it and run again")


def _retrieve(remote: Remote, path: Path, quiet: bool) -> None:
    """Fetch, check, rename."""
    home = path.with_name(f".{path.name}.fetching")
    try:
        with _silent(pooch.get_logger()):
            downloader = _Transfer(remote, path, home, quiet)
            whole = pooch.retrieve(remote.url, remote.checksum, fname=path.name, path=home, downloader=downloader)
    except exceptions.RequestException as error:
        raise UserError(f"cannot fetch {remote.url}: {_cause(error)}; fetch it by hand and put it at {path}") from error
    except UserError:
        raise
    except ValueError as error:  # pooch compared the checksum, and deleted what it does not fit
        raise UserError(
            f"what {remote.url} sent is not the file that was expected: {str(error).partition('. ')[0]}; it was "
            "deleted; run again, and if that does not help the file on the server has changed"
        ) from error
    else:
        Path(whole).replace(path)
        shutil.rmtree(home)
    finally:
        with suppress(OSError):  # a part is kept
            home.rmdir()


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Interrupted(Exception):
    """Something that another try may fix."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


_MENDABLE = (_Interrupted, exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError, HTTPError)


class _Session(requests.Session):
    """Follows no redirect from an encrypted address to one without encryption."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        address = urljoin(resp.url, target or "")
        if urlsplit(resp.url).scheme == "https" and urlsplit(address).scheme == "http":
            raise UserError(f"{resp.url} leads to an address without encryption, {address}; fetch the file by hand")
        return target


class _Transfer:
    """A downloader for `pooch` that resumes and tries again.

    Parameters
    ----------
    path : where the file will be, for messages
    home : folder of what is not whole yet
    """

    def __init__(self, remote: Remote, path: Path, home: Path, quiet: bool) -> None:
        self._remote, self._path, self._quiet = remote, path, quiet
        self._part, self._etag = home / "part", home / "etag"

    def __call__(self, url: str, output_file: str, _: object) -> None:
        failures, self._began = 0, time.monotonic()
        while True:
            before = self._have()
            try:
                self._attempt(url)
                break
            except _MENDABLE as no:
                failures = 0 if self._have() - before >= _PROGRESS else failures + 1
                reason = str(no) if isinstance(no, _Interrupted) else f"{urlsplit(url).netloc}: {_cause(no)}"
                if failures >= _TRIES:
                    raise UserError(
                        f"cannot fetch {url}, {_TRIES} tries in a row: {reason}; check the network and the proxy "
                        f"($HTTPS_PROXY), or wait for the server, and {_AGAIN}"
                    ) from None
                time.sleep(min(max(_PAUSE * 2**failures, getattr(no, "pause", 0.0)), _LONGEST_PAUSE))
        self._part.replace(output_file)
        self._etag.unlink(missing_ok=True)

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._etag.unlink(missing_ok=True)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _attempt(self, url: str) -> None:
        """Ask once for what is missing; return when the part is whole."""
        etag = self._etag.read_text(encoding="utf-8") if self._etag.exists() else ""
        offset = self._have() if etag or self._remote.checksum else 0
        # identity: a range counts bytes of the file, not of a compressed form of it
        headers = {"User-Agent": f"ltbench/{ltbench.__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-"} | ({"If-Range": etag} if etag else {})
        with _Session() as session, session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == HTTPStatus.OK:  # the whole file: it has changed, or the server knows no ranges
                self._receive(response, 0, self._begin(response))
                return
            first, size = _content_range(response)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and size == offset:
                return  # a kill came between the last byte and the rename
            if response.status_code == HTTPStatus.PARTIAL_CONTENT and first == offset:
                self._receive(response, offset, size)
            elif offset and response.status_code in (206, 416):
                self._discard()
                raise _Interrupted("the server answers with another part of the file than was asked for")
            else:
                self._refuse(response)

    def _begin(self, response: requests.Response) -> int | None:
        """Empty the part and note of which version it will be; return the size, None where nobody tells it."""
        length, known = response.headers.get("Content-Length", ""), self._remote.size
        size = int(length) if _NUMBER.fullmatch(length) else known
        if known not in (None, size):
            self._discard()
            raise UserError(
                f"{self._remote.url} now has {size} bytes, not {known}: it is not the file that ltbench knows"
            )
        if size is None and not self._remote.checksum:
            raise UserError(f"{self._remote.url} does not say how long it is; fetch it by hand as {self._path}")
        self._part.write_bytes(b"")  # before the note: old bytes must never be under a new note
        etag = response.headers.get("ETag", "")
        strong = "" if etag.startswith("W/") else etag  # a weak one does not promise equal bytes
        self._etag.write_text(strong, encoding="utf-8")
        return size

    def _receive(self, response: requests.Response, have: int, size: int | None) -> None:
        """Append what comes to the part until it is whole."""
        label = f"fetching {self._remote.name}"
        if size is not None:
            room = size - have + (size if self._remote.unpack else 0)  # packed images hardly grow
            require_room(self._path.parent, room, label)
        most = _MOST_BYTES if size is None else size
        with self._part.open("ab") as part, ProgressLine(label, size, done=have, quiet=self._quiet) as progress:
            for chunk in self._timed(response):
                have += part.write(chunk)
                progress.update(len(chunk))
                if have > most:
                    self._discard()
                    raise UserError(f"{self._remote.url} sends more than the {most} bytes it may have; it was deleted")
            synchronize(part)
        if size is not None and have < size:
            raise _Interrupted(f"the connection ended after {amount(have)} of {amount(size)}")

    def _timed(self, response: requests.Response) -> Iterator[bytes]:
        """Yield what comes, as it comes; give up where that is too slow or takes too long."""
        since, received = time.monotonic(), 0
        while chunk := response.raw.read1(_CHUNK):
            yield chunk
            now, received = time.monotonic(), received + len(chunk)
            if now - self._began > _MOST_SECONDS:
                raise UserError(
                    f"{self._remote.url} takes more than {_MOST_SECONDS / 3600:g} hours; {_AGAIN}, or fetch it by hand "
                    f"and put it at {self._path}"
                )
            if now - since >= _RATE_SECONDS:
                if received < _LEAST_RATE * (now - since):
                    raise _Interrupted(f"the server sends less than {_LEAST_RATE} bytes a second")
                since, received = now, 0

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        named = f"{status} {response.reason or ''}".strip()
        if status in _BUSY:
            raise _Interrupted(f"the server answers {named}", _seconds(response.headers.get("Retry-After", "")))
        raise UserError(
            f"{self._remote.url} answers {named}: the file may have moved, or want a login or consent in a browser; "
            f"fetch it by hand and put it at {self._path}"
        )


def _seconds(retry_after: str) -> float:
    """Return how long `Retry-After` asks to wait, by a number or a date; 0 where it says neither."""
    if _NUMBER.fullmatch(retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Return the first byte and the whole size that `Content-Range` tells, -1 and None for what it does not."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    first, size = match.groups() if match else (None, "*")
    return int(first or -1), None if size == "*" else int(size)


def _cause(error: BaseException) -> str:
    """Return the innermost reason, on one line: the libraries wrap it several times."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    while isinstance(reason := getattr(error, "reason", None), BaseException):
        error = reason
    text = re.sub(r"^<.* object at 0x\w+>: ", "", str(error))  # early urllib3 begins with a connection's repr
    return " ".join(text.split())
