"""Fetching over HTTP against a server on loopback that cuts, lies, changes, errs and stalls."""

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import requests

from ltbench.datasets.download import transfer
from ltbench.datasets.download.remote import Remote
from ltbench.datasets.download.transfer import fetch
from ltbench.errors import UserError

BODY = b"".join(i.to_bytes(4, "big") for i in range(100_000))  # 400 kB, no two blocks alike
OTHER = BODY[::-1]
SHA256, MD5 = f"sha256:{hashlib.sha256(BODY).hexdigest()}", f"md5:{hashlib.md5(BODY).hexdigest()}"
HALF = 196_608  # three of the chunks that a transfer writes at a time

Answer = Callable[[BaseHTTPRequestHandler], None]


def send(handler, status=200, body=b"", **headers):
    """Send one answer; a header given as None is left out, underscores in names stand for hyphens."""
    handler.send_response(status)
    # else a client may send its next request on a connection that is about to go
    for name, value in {"Content_Length": str(len(body)), "Connection": "close", **headers}.items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def well(body=BODY, etag='"v1"', limit=None) -> Answer:
    """Answer as a good server does, ranges and If-Range included; close the connection after `limit` bytes."""

    def answer(handler):
        wanted = handler.headers.get("Range")
        unchanged = handler.headers.get("If-Range") in (None, etag)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and unchanged else 0
        length, stamps = str(len(body) - first), {"ETag": etag}
        if first >= len(body):
            send(handler, 416, Content_Range=f"bytes */{len(body)}")
        elif first:
            end = f"bytes {first}-{len(body) - 1}/{len(body)}"
            send(handler, 206, body[first:][:limit], Content_Length=length, Content_Range=end, **stamps)
        else:
            send(handler, 200, body[:limit], Content_Length=length, **stamps)

    return answer


def status(code, **headers) -> Answer:
    return lambda handler: send(handler, code, b"sorry", **headers)


class Server:
    """Gives each request the next of `answers`, the last one for ever; keeps the headers of all requests."""

    def __init__(self):
        self.answers: list[Answer] = [well()]
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self):
                outer.requests.append({**self.headers, "path": self.path})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/data.bin"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def ranges(self):
        return [request.get("Range") for request in self.requests]

    def stall_after(self, count) -> Answer:
        """Answer with the first bytes, then with nothing until `released`."""

        def answer(handler):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(BODY)))
            handler.send_header("ETag", '"v1"')
            handler.end_headers()
            handler.wfile.write(BODY[:count])
            handler.wfile.flush()
            self.released.wait(10)
            handler.close_connection = True

        return answer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "_PAUSE", 0.0)
    monkeypatch.setattr(transfer, "_TIMEOUT", (60.0, 60.0))
    server = Server()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def names(root):
    return sorted(path.name for path in root.iterdir())


def fetched(server, root, **known):
    """Fetch the server's file; return its bytes after a check that nothing else is left."""
    content = fetch(Remote(server.url, "data.bin", **known), root, quiet=True).read_bytes()
    assert names(root) == ["data.bin"]
    return content


def refused(server, root, message, **known):
    """Check that a download ends in one line, and that no file of its name is there."""
    with pytest.raises(UserError, match=message) as caught:
        fetch(Remote(server.url, "data.bin", **known), root, quiet=True)
    assert "\n" not in str(caught.value) and not (root / "data.bin").exists()


def interrupted(server, root, **known):
    """Leave a part of `HALF` bytes, as a lost connection does."""
    server.answers = [well(limit=HALF), status(404)]
    refused(server, root, "404", **known)
    assert (root / ".data.bin.fetching" / "part").read_bytes() == BODY[:HALF]
    server.requests.clear()


def test_a_file_is_fetched_once_and_then_only_checked(server, root, capsys):
    remote = Remote(server.url, "data.bin", size=len(BODY), checksum=MD5.upper().replace("MD5", "md5"))
    assert fetch(remote, root) == root / "data.bin"
    assert (root / "data.bin").read_bytes() == BODY and names(root) == ["data.bin"]
    assert fetch(remote, root) == root / "data.bin" and len(server.requests) == 1
    assert server.requests[0]["User-Agent"].startswith("ltbench/")
    lines = capsys.readouterr().err.splitlines()
    whole = [f"{verb} data.bin: {done} MiB of 0.4 MiB" for verb in ("fetching", "checking") for done in ("0.0", "0.4")]
    assert lines == whole


@pytest.mark.parametrize("known", [{"size": 3}, {"checksum": f"sha256:{'0' * 64}"}, {"checksum": f"md5:{'0' * 32}"}])
def test_a_wrong_file_that_is_already_there_is_kept_and_named(server, root, known):
    root.mkdir()
    (root / "data.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"data\.bin is not the file of http.*; delete it and run again"):
        fetch(Remote(server.url, "data.bin", **known), root, quiet=True)
    assert (root / "data.bin").read_bytes() == b"mine" and not server.requests


CLIENT = """
import sys
from pathlib import Path
from ltbench.datasets.download.remote import Remote
from ltbench.datasets.download.transfer import fetch
fetch(Remote(sys.argv[1], "data.bin"), Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_download_killed_in_the_middle_resumes(server, root):
    server.answers = [server.stall_after(HALF), well()]
    with subprocess.Popen([sys.executable, "-c", CLIENT, server.url, root], stderr=subprocess.DEVNULL) as client:
        part = root / ".data.bin.fetching" / "part"
        until = time.monotonic() + 60
        while time.monotonic() < until and not (part.exists() and part.stat().st_size == HALF):
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        assert client.wait(10) == -signal.SIGKILL
    assert fetched(server, root) == BODY
    assert server.ranges() == [None, f"bytes={HALF}-"] and server.requests[1]["If-Range"] == '"v1"'


def test_a_kill_between_the_last_byte_and_the_rename_fetches_nothing_again(server, root):
    interrupted(server, root)
    (root / ".data.bin.fetching" / "part").write_bytes(BODY)
    server.answers = [well()]
    assert fetched(server, root) == BODY and server.ranges() == [f"bytes={len(BODY)}-"]


def test_a_connection_that_always_breaks_ends_after_some_tries(server, root, monkeypatch):
    server.answers = [well(limit=10)]
    refused(server, root, r"5 tries in a row: .*; check the network .* run the same command")
    assert len(server.requests) == 5
    monkeypatch.setattr(transfer, "_PROGRESS", 65536)
    server.answers = [well(limit=65536)]
    assert fetched(server, root, checksum=SHA256) == BODY
    assert server.ranges()[-3:] == [f"bytes={done}-" for done in (262194, 327730, 393266)]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"checksum": f"sha256:{'0' * 64}"}, r"not the file that was expected: .* expected \w+:0+ but got \w+;"),
        ({"checksum": f"md5:{'0' * 32}"}, r"not the file that was expected: .* expected \w+:0+ but got \w+;"),
        ({"size": 7}, "now has 400000 bytes, not 7: it is not the file that ltbench knows"),
    ],
)
def test_another_file_than_is_known_leaves_nothing_behind(server, root, known, message):
    refused(server, root, message, **known)
    assert names(root) == []


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"size": HALF}, f"more than the {HALF} bytes"),
        ({"size": len(BODY) + 1}, "5 tries in a row: the connection ended after"),
        ({}, r"does not say how long it is; fetch it by hand as .*data\.bin"),
    ],
)
def test_a_server_that_tells_no_length(server, root, known, message, monkeypatch):
    server.answers = [lambda handler: send(handler, body=BODY, Content_Length=None)]
    refused(server, root, message, **known)
    assert fetched(server, root, checksum=MD5) == BODY
    (root / "data.bin").unlink()
    monkeypatch.setattr(transfer, "_MOST_BYTES", HALF)
    refused(server, root, f"more than the {HALF} bytes", checksum=MD5)


@pytest.mark.parametrize("content_range", [None, "nonsense", f"bytes {HALF + 1}-{len(BODY) - 1}/{len(BODY)}"])
def test_a_broken_range_is_never_joined(server, root, content_range):
    interrupted(server, root)
    server.answers = [lambda handler: send(handler, 206, BODY[HALF:], Content_Range=content_range), well()]
    assert fetched(server, root) == BODY and server.ranges() == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (well(OTHER, etag='"v2"'), OTHER),
        (well(b"short", etag='"v2"'), b"short"),
        (lambda handler: send(handler, body=BODY, ETag='"v1"'), BODY),  # it knows no ranges
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, root, answer, body):
    interrupted(server, root)
    server.answers = [answer]
    assert fetched(server, root) == body and server.ranges() == [f"bytes={HALF}-"]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
@pytest.mark.parametrize(("known", "second"), [({}, None), ({"checksum": SHA256}, f"bytes={HALF}-")])
def test_without_a_version_only_a_checksum_makes_resuming_safe(server, root, etag, known, second):
    server.answers = [well(etag=etag, limit=HALF), well(etag=etag)]
    assert fetched(server, root, **known) == BODY and server.ranges() == [None, second]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), r"answers 404 Not Found: the file may have moved, .* fetch it by hand and put it at .*data\.bin"),
        (status(403), "answers 403 Forbidden: .* or want a login or consent in a browser"),
        (status(302, Location="ftp://127.0.0.1/x"), "cannot fetch http.*; fetch it by hand"),
        (status(302, Location="/again"), "cannot fetch http.*Exceeded 30 redirects"),
    ],
)
def test_what_no_other_try_would_mend_is_one_line(server, root, answer, message):
    server.answers = [answer]
    refused(server, root, message)
    assert names(root) == [] and {request["path"] for request in server.requests} <= {"/data.bin", "/again"}


def test_an_error_of_the_server_is_tried_again(server, root, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    asked = ["²", "7", "86400", "Fri, 01 Jan 2100 00:00:00 GMT"]
    server.answers = [*(status(429, Retry_After=after) for after in asked), well()]
    assert fetched(server, root) == BODY and pauses == [0.0, 7.0, 60.0, 60.0]
    (root / "data.bin").unlink()
    server.answers = [status(503)]
    refused(server, root, "5 tries in a row: the server answers 503 Service Unavailable;")


@pytest.mark.parametrize("sent", [0, HALF])
def test_a_server_that_stalls_is_given_up(server, root, monkeypatch, sent):
    monkeypatch.setattr(transfer, "_TIMEOUT", (5.0, 0.1))
    server.answers = [server.stall_after(sent) if sent else lambda handler: server.released.wait(10)]
    refused(server, root, r"5 tries in a row: 127\.0\.0\.1:.*[Rr]ead timed out")


@pytest.mark.parametrize(
    ("limit", "message"),
    [("_RATE_SECONDS", "5 tries in a row: the server sends less than"), ("_MOST_SECONDS", "takes more than")],
)
def test_a_server_that_drips_is_given_up(server, root, monkeypatch, limit, message):
    def drip(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for byte in BODY[:100]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.01)

    monkeypatch.setattr(transfer, limit, 0.05)
    server.answers = [drip]
    refused(server, root, message)


def test_nobody_listening_is_one_line(server, root):
    server.http.shutdown()
    server.http.server_close()
    refused(server, root, r"5 tries in a row: 127\.0\.0\.1:(?!.*object at 0x).*refused.*; check the network")


@pytest.fixture
def tls(monkeypatch):
    """Let the server answer https addresses too; return a function that makes one of its addresses."""
    send_plain = requests.adapters.HTTPAdapter.send

    def send(adapter, request, **options):
        address, request.url = request.url, request.url.replace("https://", "http://")
        response = send_plain(adapter, request, **options)
        response.url = request.url = address
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    return lambda address: address.replace("http://", "https://")


def test_an_address_without_encryption_is_never_asked_after_one_with_it(server, root, tls):
    plain = server.url.replace("data.bin", "plain")
    server.url = tls(server.url)
    server.answers = [status(302, Location="/a"), status(302, Location=plain), well()]
    refused(server, root, f"^https://.* leads to an address without encryption, {plain}; fetch the file by hand")
    assert [request["path"] for request in server.requests] == ["/data.bin", "/a"] and names(root) == []
    server.answers = [status(302, Location="/a"), status(302, Location=tls(plain)), well()]
    assert fetched(server, root) == BODY


def test_a_full_disk_is_noticed_before_the_bytes_come(server, root, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=500_000))
    with pytest.raises(UserError, match=r"fetching data\.zip needs 0\.8 MiB in .*; free some space"):
        fetch(Remote(server.url, "data.zip", unpack=True), root, quiet=True)
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY


def test_a_root_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*File exists"):
        fetch(Remote(server.url, "data.bin"), tmp_path / "root", quiet=True)


def zipped(*entries):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in entries:
            file.writestr(name, content)
    return stream.getvalue()


def test_an_archive_is_unpacked_and_not_fetched_again_when_it_was_deleted(server, root):
    server.answers = [well(zipped(("images/a.jpg", b"1"), ("images/b.jpg", b"2")))]
    remote = Remote(server.url, "data.zip", unpack=True, folder="images")
    assert fetch(remote, root, quiet=True) == root / "images"
    assert (root / "images/a.jpg").read_bytes() == b"1" and (root / "data.zip").exists()
    (root / "data.zip").unlink()
    assert fetch(remote, root, quiet=True) == root / "images" and len(server.requests) == 1
    assert fetch(Remote(server.url, "data.zip", unpack=True), root, quiet=True) == root / "data"
