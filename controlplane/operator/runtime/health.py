"""/healthz, /readyz and /metrics of the operator: what probes and Prometheus ask. Run by `main`."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

PLAIN = "text/plain; charset=utf-8"
Check = Callable[[], str]  # what is wrong; empty: nothing


class HealthServer:
    """A small HTTP server in a thread of its own."""

    def __init__(self, host: str, port: int, *, healthy: Check, ready: Check) -> None:
        """Listen; port 0 takes any, see `port`.

        Raises:
            OSError: the port is taken.
        """
        checks = {"/healthz": healthy, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                elif self.path in checks:
                    wrong = checks[self.path]()
                    self._answer(503 if wrong else 200, (wrong or "ok").encode(), PLAIN)
                else:
                    self._answer(404, b"not found", PLAIN)

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, name="health"
        )
        self._thread.daemon = True

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
