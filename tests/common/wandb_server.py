"""A server that W&B's own client takes for one of its own, as far as a run and a sweep need it."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class WandbServer:
    """A W&B server that answers, or that from some request on takes requests and never answers.

    Attributes
    ----------
    hangs_at : part of the first request, of path or body, that gets no answer
    codes : of the answers in turn, the last for all that follow
    requests : paths and bodies, as they came
    """

    hangs_at: str | None = None
    codes: tuple[int, ...] = (200,)
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: str) -> Any:
        self.requests.append((path, body))
        if self.hangs_at is not None and any(self.hangs_at in text for request in self.requests for text in request):
            self.released.wait(60)
        project = {"id": "p", "name": "ltbench", "entity": {"id": "e", "name": "we"}}
        bucket = {"id": "b", "name": "r", "displayName": "r", "sweepName": "", "historyLineCount": 0}
        known = {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        known |= {"model": {**project, "bucket": None}, "serverInfo": {"features": []}}
        known |= {"viewer": {"id": "u", "username": "me", "entity": "we", "flags": "{}", "teams": {"edges": []}}}
        known |= {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        known |= {"upsertSweep": {"sweep": {"id": "s", "name": "abc", "project": project}}}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "c", "latestArtifact": None}}
        known |= {"createArtifact": {"artifact": artifact}, "project": None}
        return {"data": known} if "graphql" in path else {}

    def history(self) -> list[dict[str, Any]]:
        """Return the history rows that came."""
        streams = [json.loads(body) for path, body in self.requests if "file_stream" in path]
        files = [stream["files"]["wandb-history.jsonl"] for stream in streams if "wandb-history.jsonl" in str(stream)]
        return [json.loads(line) for file in files for line in file["content"]]


@contextlib.contextmanager
def serving(server: WandbServer) -> Iterator[str]:
    """Yield the address at which a server listens."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            data = json.dumps(server.answer(self.path, body.decode(errors="replace"))).encode()
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(server.codes[min(len(server.requests), len(server.codes)) - 1])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None: ...

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        server.released.set()
        listening.shutdown()
        listening.server_close()
