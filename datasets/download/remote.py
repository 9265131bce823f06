"""Fetch files over HTTP: resumed after a kill, checked before they get their names, refused in one line.

Bytes go to `NAME.part`; `NAME.part.json` beside it says of which version of the file they are, so that a resumed
download never joins two versions. `NAME` appears by one rename, after size and checksum were compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

import requests
from requests import exceptions
from tqdm import tqdm

import ltbench
from ltbench.datasets.download import archives
from ltbench.errors import UserError
from ltbench.files import Progress, amount, locked, require_room

_TIMEOUT = (15.0, 60.0)  # seconds to connect, and between two packets
_TRIES = 5  # in a row without progress
_PROGRESS = 1 << 20  # bytes that count as progress
_PAUSE, _LONGEST_PAUSE = 0.25, 60.0  # seconds; the first doubles with every try
_CHUNK = 1 << 16  # what a broken connection may lose
_BLOCK = 1 << 20
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_AGAIN = "run the same command again, what is there is kept"


@dataclass(frozen=True)
class Remote:
    """A file on a server, and where it goes.

    Attributes
    ----------
    url : http or https
    name : of the file in the root
    size : bytes, None where unknown
    sha256, md5 : hex digits, None where unknown
    unpack : whether it is a zip that is unpacked
    folder : in the root, where it is unpacked; by default the archive's name without its suffixes

    Raises
    ------
    UserError : another scheme than http and https, a name or folder that leaves the root, or an archive that is no .zip
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
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
                _Transfer(remote, path, quiet).run()
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or mend it, and {_AGAIN}"
        ) from error
    return archives.extract(path, folder, quiet=quiet) if remote.unpack else path


def mismatch(remote: Remote, path: Path, *, quiet: bool = False) -> str:
    """Return how a file differs from what is known of it, in size or checksum; empty if it does not."""
    size = path.stat().st_size
    if remote.size not in (None, size):
        return f"it has {size} bytes, not {remote.size}"
    expected = {kind: digest for kind in ("sha256", "md5") if (digest := getattr(remote, kind))}
    found = {kind: hashlib.new(kind, usedforsecurity=False) for kind in expected}
    with (
        path.open("rb") as file,
        Progress(f"checking {remote.name}", size, quiet=quiet or not expected) as progress,
    ):
        while expected and (block := file.read(_BLOCK)):
            for digest in found.values():
                digest.update(block)
            progress.update(len(block))
    for kind, digest in expected.items():
        if found[kind].hexdigest() != digest.lower():
            return f"its {kind} is {found[kind].hexdigest()}, not {digest.lower()}"
    return ""


def _check_existing(remote: Remote, path: Path, quiet: bool) -> None:
    if not path.is_file():
        raise UserError(f"{path} is no file; move it away and run again")
    difference = mismatch(remote, path, quiet=quiet)
    if difference:
        raise UserError(f"{path} is not the file of {remote.url}: {difference}; delete it and run again")
    for left in (path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")):
        left.unlink(missing_ok=True)  # of a run killed between the rename and its end


@dataclass(frozen=True)
class _Version:
    """Of which version of a file the bytes of a part are: what the server said when it sent the first."""

    url: str
    etag: str | None = None
    modified: str | None = None
    size: int | None = None

    @classmethod
    def of(cls, url: str, response: requests.Response, size: int | None) -> _Version:
        etag = response.headers.get("ETag")
        # weak ones do not promise equal bytes
        strong = etag if etag and not etag.startswith("W/") else None
        return cls(url, strong, response.headers.get("Last-Modified"), size)

    @property
    def validator(self) -> str | None:
        """What `If-Range` takes."""
        return self.etag or self.modified


class _Transient(Exception):
    """Something that another try may mend."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Transfer:
    """One download into a part and, once it is whole and checked, to the file's own name."""

    def __init__(self, remote: Remote, path: Path, quiet: bool) -> None:
        self._remote, self._path, self._quiet = remote, path, quiet
        self._part = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        self._ranges = True  # until the server answers one with nonsense

    def run(self) -> None:
        """Fetch, check, rename."""
        failures = 0
        while True:
            before = self._have()
            try:
                self._attempt()
                break
            except _Transient as trouble:
                failures = 0 if self._have() - before >= _PROGRESS else failures + 1
                if failures >= _TRIES:
                    raise UserError(
                        f"cannot fetch {self._remote.url}, {_TRIES} tries in a row: {trouble}; check the network and "
                        f"the proxy ($HTTPS_PROXY), or wait for the server, and {_AGAIN}"
                    ) from None
                self._wait(trouble, failures)
        difference = mismatch(self._remote, self._part, quiet=self._quiet)
        if difference:
            self._discard()
            raise UserError(
                f"what {self._remote.url} sent is not the file that was expected: {difference}; it was deleted; run "
                "again, and if that does not help the file on the server has changed"
            )
        self._part.replace(self._path)
        self._note.unlink(missing_ok=True)

    def _wait(self, trouble: _Transient, failures: int) -> None:
        pause = min(max(_PAUSE * 2**failures, trouble.pause), _LONGEST_PAUSE)
        if not self._quiet:
            tqdm.write(f"{self._remote.name}: {trouble}; trying again in {pause:g} s", file=sys.stderr)
        time.sleep(pause)

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _attempt(self) -> None:
        """Ask once for what is missing; return when the part is whole.

        Raises
        ------
        _Transient : it is not, and another try is worth it
        UserError : no other try would help
        """
        version = self._resumable()
        offset = self._have() if version else 0
        if version and offset and offset == version.size:
            return  # killed between the last byte and the rename
        with self._answer(offset, version) as response:
            # to a request for the rest, 200 means: the file has changed, or no ranges here; this is the whole file
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                size = self._continued(response, offset, version)
            else:
                offset, size = 0, self._begin(response)
            self._receive(response, offset, size)

    def _resumable(self) -> _Version | None:
        """Return the version of the part, None where the part is of no use."""
        try:
            version = _Version(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        checkable = version.validator or self._remote.sha256 or self._remote.md5
        if not self._ranges or version.url != self._remote.url or not checkable:
            return None
        if version.size is not None and self._have() > version.size:
            return None
        return version

    @contextmanager
    def _answer(self, offset: int, version: _Version | None) -> Iterator[requests.Response]:
        """Yield a response that carries bytes of the file; any other one becomes an error."""
        # identity: a range counts bytes of the file, not of a compressed form of it
        headers = {"User-Agent": f"ltbench/{ltbench.__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if version.validator:
                headers["If-Range"] = version.validator
        with (
            _network_errors(self._remote),
            requests.Session() as session,
            _follow(session, self._remote.url, headers, self._path) as response,
        ):
            if offset and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
                raise _Transient("the server has less of the file than was fetched before; starting over")
            _refuse_errors(response, self._remote, self._path, partial=offset > 0)
            yield response

    def _continued(self, response: requests.Response, offset: int, version: _Version) -> int | None:
        """Check that an answer is the rest that was asked for, of the same version; return the size of the whole."""
        start, total = _content_range(response)
        now = _Version.of(version.url, response, total)
        known = ((version.etag, now.etag), (version.modified, now.modified), (version.size, now.size))
        changed = any(None not in pair and pair[0] != pair[1] for pair in known)  # it need not heed If-Range
        if start != offset or changed:
            self._ranges = False
            raise _Transient("the server answers with another part of the file than was asked for; starting over")
        return version.size if total is None else total

    def _begin(self, response: requests.Response) -> int | None:
        """Empty the part and note of which version it will be; return the size, None where nobody tells it."""
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        expected = self._remote.size
        if size is not None and expected not in (None, size):
            self._discard()
            raise UserError(
                f"{self._remote.url} now has {size} bytes, not {expected}: it is not the file that ltbench knows"
            )
        checkable = expected is not None or self._remote.sha256 or self._remote.md5
        if size is None and not checkable and response.headers.get("Transfer-Encoding") != "chunked":
            raise UserError(f"{self._remote.url} does not say how long it is; fetch it by hand as {self._path}")
        self._part.write_bytes(b"")  # before the note: old bytes must never be under a new note
        size = expected if size is None else size
        version = _Version.of(self._remote.url, response, size)
        temporary = self._note.with_name(f"{self._note.name}.tmp")
        temporary.write_text(json.dumps(asdict(version)), encoding="utf-8")
        temporary.replace(self._note)
        return size

    def _receive(self, response: requests.Response, offset: int, size: int | None) -> None:
        """Append what comes to the part until it is whole."""
        if size is not None:
            room = size - offset + (size if self._remote.unpack else 0)  # packed images hardly grow
            require_room(self._path.parent, room, f"fetching {self._remote.name}")
        label = f"fetching {self._remote.name}"
        have = offset
        with (
            self._part.open("ab") as part,
            Progress(label, size, done=offset, quiet=self._quiet) as progress,
        ):
            for chunk in response.iter_content(_CHUNK):
                part.write(chunk)
                have += len(chunk)
                progress.update(len(chunk))
                if size is not None and have > size:
                    break
            part.flush()
            os.fsync(part.fileno())
        if size is not None and have > size:
            self._discard()
            raise UserError(f"{self._remote.url} sends more than the {size} bytes it should have; it was deleted")
        if size is not None and have < size:
            raise _Transient(f"the connection ended after {amount(have)} of {amount(size)}")


def _follow(session: requests.Session, url: str, headers: Mapping[str, str], path: Path) -> requests.Response:
    """Return the answer at the end of the redirects; each address is checked before it is asked.

    Raises
    ------
    UserError : one of them has no encryption although the first has
    """
    address = url
    for _ in range(session.max_redirects + 1):
        try:
            response = session.get(address, headers=headers, stream=True, timeout=_TIMEOUT, allow_redirects=False)
        except ValueError as error:  # the next address makes no sense, for which requests has no error of its own
            raise exceptions.InvalidURL(str(error)) from error
        if response.next is None:
            return response
        response.close()
        address = response.next.url
        if urlsplit(url).scheme == "https" and urlsplit(address).scheme != "https":
            raise UserError(
                f"{url} leads to an address without encryption, {address}; fetch it by hand and put it at {path}"
            )
    raise exceptions.TooManyRedirects(f"Exceeded {session.max_redirects} redirects")


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Return the first byte and the whole size that `Content-Range` tells; -1 where it makes no sense."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _refuse_errors(response: requests.Response, remote: Remote, path: Path, *, partial: bool) -> None:
    """Raise what an answer means that carries no bytes of the file."""
    status, url = response.status_code, remote.url
    by_hand = f"fetch it by hand and put it at {path}"
    if status in _TRANSIENT:
        after = response.headers.get("Retry-After", "")
        raise _Transient(f"the server answers {_named(status)}", float(after) if after.isdigit() else 0.0)
    if status in (401, 403):
        raise UserError(f"{url} answers {_named(status)}: it may want a login or consent in a browser; {by_hand}")
    if status != HTTPStatus.OK and not (partial and status == HTTPStatus.PARTIAL_CONTENT):
        raise UserError(f"{url} answers {_named(status)}: the file may have moved; {by_hand}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{url} answers with a web page, not with {remote.name}; open it in a browser, or {by_hand}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UserError(f"{url} is only sent compressed, so it cannot be checked; {by_hand}")


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


@contextmanager
def _network_errors(remote: Remote) -> Iterator[None]:
    """Tell what another try may mend from what it will not."""
    host = urlsplit(remote.url).netloc
    try:
        yield
    except exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise _Transient(f"the encrypted connection to {host} broke ({_cause(error)})") from error
        raise UserError(f"cannot trust {host} ({_cause(error)}); check clock, proxy, $REQUESTS_CA_BUNDLE") from error
    except exceptions.Timeout as error:
        raise _Transient(f"{host} does not answer in time") from error
    except (exceptions.ConnectionError, exceptions.ChunkedEncodingError) as error:
        raise _Transient(f"no connection to {host}, or it broke ({_cause(error)})") from error
    except exceptions.RequestException as error:
        raise UserError(f"cannot fetch {remote.url}: {_cause(error)}; fetch it by hand") from error


def _cause(error: BaseException) -> str:
    """Return the innermost reason, on one line: the libraries wrap it several times."""
    while error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    while isinstance(reason := getattr(error, "reason", None), BaseException):
        error = reason
    text = re.sub(r"^<.* object at 0x\w+>: ", "", str(error))  # early urllib3 begins with a connection's repr
    return " ".join(text.split())
