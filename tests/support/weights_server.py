"""A hub and a bucket on loopback that break off, lie and refuse as a test tells them to."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPO = "lab/model"
COMMIT = "c0ffee"
BUCKET = "models"
PREFIX = "v4"
PAGE_FILES = 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class WeightsServer:
    """What it serves, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    url: str = ""
    cut_after_bytes: int | None = None  # of each answer with a file's bytes
    cuts_left: int = 0
    busy_left: int = 0  # answers 503
    knows_ranges: bool = True
    token: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    authorizations: list[str] = field(default_factory=list)

    def etag(self, path: str) -> str:
        return sha256(self.files[path])[:32]


@contextmanager
def weights_server(files: dict[str, bytes]) -> Iterator[WeightsServer]:
    """A running server of `files`, as repository and as bucket."""
    state = WeightsServer(dict(files))

    class Handler(_Handler):
        pass

    Handler.state = state
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: WeightsServer

    def do_GET(self) -> None:
        state, parts = self.state, urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        state.authorizations.append(self.headers.get("Authorization", ""))
        if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
            return self._answer(401, b"")
        if state.busy_left:
            state.busy_left -= 1
            return self._answer(503, b"")
        if path.startswith(f"/api/models/{REPO}/revision/"):
            return self._answer(200, json.dumps({"sha": COMMIT}).encode())
        if path == f"/api/models/{REPO}/tree/{COMMIT}":
            return self._tree(int(query.get("cursor", ["0"])[0]))
        if path == f"/{BUCKET}":
            return self._bucket(int(query.get("continuation-token", ["0"])[0]))
        for root in (f"/{REPO}/resolve/{COMMIT}/", f"/{BUCKET}/{PREFIX}/"):
            if path.startswith(root) and path.removeprefix(root) in state.files:
                return self._file(path.removeprefix(root))
        return self._answer(404, b"")

    def _tree(self, first: int) -> None:
        names = sorted(self.state.files)
        page = [self._entry(name) for name in names[first : first + PAGE_FILES]]
        page.append({"type": "directory", "path": "sub", "size": 0, "oid": ""})
        headers = {}
        if first + PAGE_FILES < len(names):
            following = f"{self.state.url}{urlsplit(self.path).path}?cursor={first + PAGE_FILES}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._answer(200, json.dumps(page).encode(), headers)

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.state.files[name]
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": "git"}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": sha256(content), "size": len(content)}
        return entry

    def _bucket(self, first: int) -> None:
        names = sorted(self.state.files)
        entries = "".join(
            f"<Contents><Key>{PREFIX}/{name}</Key><Size>{len(self.state.files[name])}</Size>"
            f"<ETag>&quot;{self.state.etag(name)}&quot;</ETag></Contents>"
            for name in names[first : first + PAGE_FILES]
        )
        more = ""
        if first + PAGE_FILES < len(names):
            more = f"<NextContinuationToken>{first + PAGE_FILES}</NextContinuationToken>"
        root = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        folder = f"<Contents><Key>{PREFIX}/</Key><Size>0</Size></Contents>"
        self._answer(200, f"{root}{folder}{entries}{more}</ListBucketResult>".encode())

    def _file(self, name: str) -> None:
        state = self.state
        state.asked[name] += 1
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted.strip('"') != state.etag(name):
            return self._answer(412, b"")
        content, status = state.files[name], 200
        asked = self.headers.get("Range")
        if asked is not None and state.knows_ranges:
            content = content[int(asked.removeprefix("bytes=").rstrip("-")) :]
            status = 206
        cut = state.cut_after_bytes if state.cuts_left else None
        if cut is not None and cut < len(content):
            state.cuts_left -= 1
            self._answer(status, content[:cut], length=len(content))
            self.close_connection = True
            return None
        return self._answer(status, content)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.state.sent_bytes += len(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
