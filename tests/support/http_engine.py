"""An engine without a model: answers as a worker does, and does as it is told by POST /tell.

Runs in a test's own process, or as a pod's container: `python http_engine.py <host> <model>`.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8000


@dataclass
class Engine:
    """What it says."""

    model: str = "flash@shop"
    health: int = 200
    completions: int = 200
    running: int = 0
    silent: bool = False
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == "/health":
            return self.health, b"{}"
        if path == "/metrics":
            lines = [f"vllm:num_requests_running {self.running}", "vllm:num_requests_waiting 0"]
            return 200, "\n".join(lines).encode()
        if path == "/v1/models":
            served = {"data": [{"id": self.model, "max_model_len": 4096}]}
            return 200, json.dumps(served).encode()
        if path == "/v1/completions":
            return self.completions, json.dumps({"choices": [{"text": "4"}]}).encode()
        return 404, b""


def serve(engine: Engine, host: str, port: int) -> ThreadingHTTPServer:
    """Listen; the caller runs it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if engine.silent:
                threading.Event().wait(10)
            self._send(*engine.answer(self.path))

        def do_POST(self) -> None:
            body: dict[str, Any] = json.loads(
                self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"
            )
            if self.path == "/tell":
                vars(engine).update(body)
                self._send(200, b"{}")
            else:
                self._send(*engine.answer(self.path))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    return server


@contextmanager
def engine_running(engine: Engine) -> Iterator[str]:
    """Run it in this process; yields its URL."""
    server = serve(engine, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    serve(Engine(model=sys.argv[2]), sys.argv[1], PORT).serve_forever()
