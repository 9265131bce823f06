"""Fetching over HTTP against a server on loopback that cuts, lies, changes, errs and stalls."""

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
from filelock import FileLock

from ltbench.datasets.download import remote as remote_module
from ltbench.datasets.download.remote import Remote, fetch
from ltbench.errors import UserError

BODY = b"".join(i.to_bytes(4, "big") for i in range(100_000))  # 400 kB, no two blocks alike
OTHER = BODY[::-1]
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
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


def well(body=BODY, etag='"v1"', modified=None, limit=None) -> Answer:
    """Answer as a good server does, ranges and If-Range included; close the connection after `limit` bytes."""

    def answer(handler):
        wanted = handler.headers.get("Range")
        unchanged = handler.headers.get("If-Range") in (None, etag, modified)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and unchanged else 0
        length, stamps = str(len(body) - first), {"ETag": etag, "Last_Modified": modified}
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
    monkeypatch.setattr(remote_module, "_PAUSE", 0.0)
    monkeypatch.setattr(remote_module, "_TIMEOUT", (60.0, 60.0))
    server = Server()
    yield server
    server.released.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def names(root):
    """What lies in the root besides the lock."""
    return sorted(path.name for path in root.iterdir() if path.name != ".data.bin.lock")


def interrupted(server, root, **known):
    """Leave a part of `HALF` bytes, as a lost connection does."""
    server.answers = [well(limit=HALF), status(404)]
    with pytest.raises(UserError):
        fetch(Remote(server.url, "data.bin", **known), root, quiet=True)
    assert (root / "data.bin.part").read_bytes() == BODY[:HALF]
    assert names(root) == ["data.bin.part", "data.bin.part.json"]
    server.requests.clear()


def test_a_file_is_fetched_once_and_then_only_checked(server, root, capsys):
    remote = Remote(server.url, "data.bin", size=len(BODY), sha256=SHA256.upper(), md5=MD5)
    assert fetch(remote, root) == root / "data.bin"
    assert (root / "data.bin").read_bytes() == BODY and names(root) == ["data.bin"]
    assert fetch(remote, root, quiet=True) == root / "data.bin" and len(server.requests) == 1
    assert server.requests[0]["User-Agent"].startswith("ltbench/")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["fetching data.bin: 0.0 MiB of 0.4 MiB", "checking data.bin: 0.0 MiB of 0.4 MiB"]


@pytest.mark.parametrize("known", [{"size": 3}, {"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_a_wrong_file_that_is_already_there_is_kept_and_named(server, root, known):
    root.mkdir()
    (root / "data.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"data\.bin is not the file of http.*; delete it and run again"):
        fetch(Remote(server.url, "data.bin", **known), root, quiet=True)
    assert (root / "data.bin").read_bytes() == b"mine" and not server.requests


CLIENT = """
import sys
from pathlib import Path
from ltbench.datasets.download.remote import Remote, fetch
fetch(Remote(sys.argv[1], "data.bin", sha256=sys.argv[3]), Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_download_killed_in_the_middle_resumes(server, root):
    server.answers = [server.stall_after(HALF), well()]
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.url, root, SHA256], stderr=subprocess.DEVNULL
    ) as client:
        part = root / "data.bin.part"
        until = time.monotonic() + 20
        while time.monotonic() < until and not (part.exists() and part.stat().st_size == HALF):
            time.sleep(0.01)
        client.send_signal(signal.SIGKILL)
        assert client.wait(10) == -signal.SIGKILL
    assert names(root) == ["data.bin.part", "data.bin.part.json"]
    fetch(Remote(server.url, "data.bin", sha256=SHA256), root, quiet=True)
    assert (root / "data.bin").read_bytes() == BODY and names(root) == ["data.bin"]
    assert server.ranges() == [None, f"bytes={HALF}-"] and server.requests[1]["If-Range"] == '"v1"'


def test_a_kill_between_the_last_byte_and_the_rename_needs_no_request(server, root):
    interrupted(server, root, sha256=SHA256)
    (root / "data.bin.part").write_bytes(BODY)
    fetch(Remote(server.url, "data.bin", sha256=SHA256), root, quiet=True)
    assert names(root) == ["data.bin"] and not server.requests


def test_a_kill_between_the_rename_and_its_end_leaves_no_litter(server, root):
    interrupted(server, root)
    (root / "data.bin").write_bytes(BODY)
    fetch(Remote(server.url, "data.bin", sha256=SHA256), root, quiet=True)
    assert names(root) == ["data.bin"] and not server.requests


def test_truncated_bodies_are_kept_and_continued(server, root, capsys):
    server.answers = [well(limit=HALF), well(limit=65536), well(limit=65536), well()]
    fetch(Remote(server.url, "data.bin", size=len(BODY), sha256=SHA256), root)
    assert (root / "data.bin").read_bytes() == BODY
    assert server.ranges() == [None, *(f"bytes={HALF + done}-" for done in (0, 65536, 131072))]
    assert capsys.readouterr().err.count("; trying again in 0 s") == 3


def test_a_connection_that_always_breaks_ends_after_some_tries(server, root):
    server.answers = [well(limit=10)]
    with pytest.raises(UserError, match=r"5 tries in a row: .*connection.*; check the .* run the same command"):
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    assert len(server.requests) == 5 and not (root / "data.bin").exists()


def test_tries_count_anew_after_progress(server, root, monkeypatch):
    monkeypatch.setattr(remote_module, "_PROGRESS", 65536)
    server.answers = [well(limit=65536)]
    fetch(Remote(server.url, "data.bin", sha256=SHA256), root, quiet=True)
    assert len(server.requests) == 7 and (root / "data.bin").read_bytes() == BODY


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"md5": MD5, "sha256": "0" * 64}])
def test_a_wrong_checksum_leaves_nothing_behind(server, root, known):
    with pytest.raises(UserError, match=r"not the file that was expected: its (sha256|md5) is .*, not 0+; it was del"):
        fetch(Remote(server.url, "data.bin", **known), root, quiet=True)
    assert names(root) == []


def test_a_wrong_size_is_noticed_before_the_bytes_come(server, root):
    with pytest.raises(UserError, match=r"now has 400000 bytes, not 7: it is not the file that ltbench knows"):
        fetch(Remote(server.url, "data.bin", size=7), root, quiet=True)
    assert names(root) == []


@pytest.mark.parametrize("size", [HALF, len(BODY) + 1])
def test_a_wrong_size_is_noticed_where_the_server_tells_none(server, root, size):
    server.answers = [lambda handler: send(handler, body=BODY, Content_Length=None)]
    with pytest.raises(UserError, match=f"more than the {HALF} bytes|5 tries in a row: the connection ended after"):
        fetch(Remote(server.url, "data.bin", size=size), root, quiet=True)
    assert not (root / "data.bin").exists()


def test_an_unknown_length_is_taken_only_where_the_end_can_be_told(server, root):
    server.answers = [lambda handler: send(handler, body=BODY, Content_Length=None)]
    with pytest.raises(UserError, match=r"does not say how long it is; fetch it by hand as .*data\.bin"):
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    fetch(Remote(server.url, "data.bin", md5=MD5), root, quiet=True)
    assert (root / "data.bin").read_bytes() == BODY
    chunked = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    for name, end in (("whole.bin", b"0\r\n\r\n"), ("cut.bin", b"")):
        body = chunked + end
        server.answers = [
            lambda handler, body=body: send(handler, body=body, Content_Length=None, Transfer_Encoding="chunked")
        ]
        if end:
            assert fetch(Remote(server.url, name), root, quiet=True).read_bytes() == BODY
        else:
            with pytest.raises(UserError, match="it broke"):
                fetch(Remote(server.url, name), root, quiet=True)
            assert not (root / name).exists()


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, root):
    interrupted(server, root)
    server.answers = [lambda handler: send(handler, body=BODY, ETag='"v1"')]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "content_range",
    [
        None,
        "nonsense",
        f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes {HALF + 1}-{len(BODY) - 1}/{len(BODY)}",
        f"bytes {HALF}-{len(BODY)}/{len(BODY) + 1}",
    ],
)
def test_a_broken_range_is_never_joined(server, root, content_range):
    interrupted(server, root)
    rest = BODY[HALF:]
    server.answers = [lambda handler: send(handler, 206, rest, Content_Range=content_range, ETag='"v1"'), well()]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [f"bytes={HALF}-", None]


def test_a_shorter_range_than_asked_for_is_continued(server, root):
    interrupted(server, root)
    middle = f"bytes {HALF}-{HALF + 65535}/{len(BODY)}"
    server.answers = [
        lambda handler: send(handler, 206, BODY[HALF : HALF + 65536], Content_Range=middle, ETag='"v1"'),
        well(),
    ]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [f"bytes={HALF}-", f"bytes={HALF + 65536}-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, root):
    interrupted(server, root)
    server.answers = [well(OTHER, etag='"v2"')]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == OTHER
    assert server.ranges() == [f"bytes={HALF}-"]


def test_a_changed_file_is_told_also_where_the_server_ignores_if_range(server, root):
    interrupted(server, root)
    rest = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
    server.answers = [
        lambda handler: send(handler, 206, OTHER[HALF:], Content_Range=rest, ETag='"v2"'),
        well(OTHER, etag='"v2"'),
    ]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == OTHER


def test_a_weak_etag_is_no_promise_but_a_date_is(server, root):
    date = "Wed, 01 Jan 2020 00:00:00 GMT"
    server.answers = [well(etag='W/"v1"', modified=date, limit=HALF), well(etag='W/"v1"', modified=date)]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert [request.get("If-Range") for request in server.requests] == [None, date]


@pytest.mark.parametrize(("known", "second"), [({}, None), ({"sha256": SHA256}, f"bytes={HALF}-")])
def test_without_a_version_only_a_checksum_makes_resuming_safe(server, root, known, second):
    server.answers = [well(etag=None, limit=HALF), well(etag=None)]
    assert fetch(Remote(server.url, "data.bin", **known), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [None, second]


@pytest.mark.parametrize("note", [None, "", "{}", "[1]", '{"url": "http://elsewhere/", "etag": "1"}'])
def test_a_part_of_unknown_origin_is_not_continued(server, root, note):
    interrupted(server, root)
    (root / "data.bin.part.json").unlink() if note is None else (root / "data.bin.part.json").write_text(note)
    server.answers = [well()]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [None]


def test_a_file_that_became_shorter_is_fetched_anew(server, root):
    interrupted(server, root)
    server.answers = [well(b"short", etag='"v1"')]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == b"short"
    assert server.ranges() == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), r"answers 404 Not Found: the file may have moved; fetch it by hand and put it at .*data\.bin"),
        (status(410), "answers 410 Gone: the file may have moved"),
        (status(403), "answers 403 Forbidden: it may want a login or consent in a browser; fetch it by hand"),
        (status(401), "answers 401 Unauthorized: it may want a login"),
        (status(299), "answers 299: the file may have moved"),
        (status(302, Location="ftp://127.0.0.1/x"), "cannot fetch http.*; fetch it by hand"),
        (status(302, Location="http://["), "cannot fetch http.*; fetch it by hand"),
        (status(302, Location="/again"), "cannot fetch http.*Exceeded 30 redirects"),
        (lambda handler: send(handler, body=b"<p>log in", Content_Type="text/html; charset=UTF-8"), "with a web page"),
        (lambda handler: send(handler, body=b"x", Content_Encoding="gzip"), "is only sent compressed"),
        (lambda handler: send(handler, 206, b"x", Content_Range="bytes 0-0/2"), "answers 206 Partial Content"),
    ],
)
def test_what_no_other_try_would_mend_is_one_line(server, root, answer, message):
    server.answers = [answer]
    with pytest.raises(UserError, match=message) as caught:
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    assert names(root) == [] and "\n" not in str(caught.value)
    assert {request["path"] for request in server.requests} <= {"/data.bin", "/again"}


def test_an_error_of_the_server_is_tried_again(server, root, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers = [status(500), status(429, Retry_After="7"), status(503, Retry_After="86400"), well()]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert pauses == [0.0, 7.0, 60.0]


def test_an_error_that_stays_ends_after_some_tries(server, root):
    server.answers = [status(503)]
    with pytest.raises(UserError, match="5 tries in a row: the server answers 503 Service Unavailable;"):
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    assert len(server.requests) == 5


@pytest.mark.parametrize("sent", [0, HALF])
def test_a_server_that_stalls_is_given_up(server, root, monkeypatch, sent):
    monkeypatch.setattr(remote_module, "_TIMEOUT", (5.0, 0.1))
    server.answers = [server.stall_after(sent) if sent else lambda handler: server.released.wait(10)]
    with pytest.raises(UserError, match=r"does not answer in time|it broke \(.*[Rr]ead timed out"):
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    assert not (root / "data.bin").exists()


def test_nobody_listening_is_one_line(server, root):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match=r"no connection to 127\.0\.0\.1:.*refused.*; check the network") as caught:
        fetch(Remote(server.url, "data.bin"), root, quiet=True)
    assert "\n" not in str(caught.value) and "object at 0x" not in str(caught.value)


def test_redirects_are_followed(server, root):
    server.answers = [status(302, Location="/elsewhere"), well()]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert [request["path"] for request in server.requests] == ["/data.bin", "/elsewhere"]


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
    plain, path = server.url.replace("data.bin", "plain"), root / "data.bin"
    server.answers = [status(302, Location="/a"), status(302, Location=plain), status(302, Location=tls(plain)), well()]
    with pytest.raises(
        UserError, match=f"^https://.* leads to an address without encryption, {plain}; .* put it at {path}"
    ):
        fetch(Remote(tls(server.url), "data.bin"), root, quiet=True)
    assert [request["path"] for request in server.requests] == ["/data.bin", "/a"] and names(root) == []
    server.answers = [status(302, Location="/a"), status(302, Location=tls(plain)), well()]
    assert fetch(Remote(tls(server.url), "data.bin"), root, quiet=True).read_bytes() == BODY


def test_a_redirect_keeps_the_range_and_the_cookies(server, root):
    interrupted(server, root)
    server.answers = [status(302, Location="/elsewhere", Set_Cookie="token=7; Path=/"), well()]
    assert fetch(Remote(server.url, "data.bin"), root, quiet=True).read_bytes() == BODY
    assert server.ranges() == [f"bytes={HALF}-"] * 2 and server.requests[1]["Cookie"] == "token=7"


def test_a_full_disk_is_noticed_before_the_bytes_come(server, root, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=500_000))
    with pytest.raises(UserError, match=r"fetching data\.zip needs 0\.8 MiB in .*; free some space"):
        fetch(Remote(server.url, "data.zip", unpack=True), root, quiet=True)
    assert not (root / "data.zip").exists()
    fetch(Remote(server.url, "data.bin"), root, quiet=True)


def test_a_root_that_cannot_be_written_is_one_line(server, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*File exists"):
        fetch(Remote(server.url, "data.bin"), tmp_path / "root", quiet=True)


def test_a_second_process_waits_and_does_not_fetch_again(server, root, capsys):
    root.mkdir()
    held = threading.Event()

    def other():
        with FileLock(root / ".data.bin.lock"):
            held.set()
            time.sleep(0.2)
            (root / "data.bin").write_bytes(BODY)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(5)
    fetch(Remote(server.url, "data.bin", sha256=SHA256), root, quiet=True)
    thread.join()
    assert "another process is fetching data.bin; waiting for it" in capsys.readouterr().err and not server.requests


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


def test_a_hostile_archive_is_refused(server, root):
    server.answers = [well(zipped(("a", b"1"), ("../../etc/x", b"2")))]
    with pytest.raises(UserError, match=r"leaves the folder: '\.\./\.\./etc/x'"):
        fetch(Remote(server.url, "data.zip", unpack=True), root, quiet=True)
    assert not (root / "data").exists() and not (root.parent.parent / "etc").exists()


def test_a_folder_with_own_files_is_told_before_anything_is_fetched(server, root):
    (root / "data").mkdir(parents=True)
    (root / "data" / "mine.jpg").write_bytes(b"1")
    with pytest.raises(UserError, match="was not unpacked by ltbench; use it as it is"):
        fetch(Remote(server.url, "data.zip", unpack=True), root, quiet=True)
    assert not server.requests


@pytest.mark.parametrize(
    ("url", "name", "folder"),
    [
        *((url, "a", "") for url in ("ftp://host/a", "file:///etc/passwd", "host/a", "http:///a")),
        *(("http://host/a", name, "") for name in ("", ".", "..", "../a", "/a", "a/b", "a\\b", "C:a")),
        *(("http://host/a", name, "") for name in ("a", "a.tar", "a.tar.gz")),
        *(("http://host/a", "a.zip", folder) for folder in ("..", "/a", "a/../..", "C:a", "\\a", ".")),
    ],
)
def test_an_address_or_place_that_is_not_taken(url, name, folder):
    with pytest.raises(UserError, match=r"is no (http or https address|file name|folder in the root|\.zip)"):
        Remote(url, name, unpack=True, folder=folder)
