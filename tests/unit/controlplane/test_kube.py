"""`Kube` against servers that a real one only seldom is: busy, silent, broken."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controlplane import kube as module
from controlplane.cluster import PODS, Gone, Unreachable
from controlplane.errors import StartupError
from controlplane.kube import Kube


class OddServer(BaseHTTPRequestHandler):
    """Answers every request in the way the test set."""

    status = 200
    headers_sent: dict[str, str] = {}  # noqa: RUF012
    body = b""
    silent_seconds = 0.0

    def do_GET(self) -> None:
        self.send_response(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.body)
        self.wfile.flush()
        time.sleep(self.silent_seconds)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> type[OddServer]:
    return type("Odd", (OddServer,), {})


@pytest.fixture
def client(odd: type[OddServer], tmp_path: Path) -> Iterator[Kube]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), odd)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_address[1]}"}}
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(content))
    made = Kube(kubeconfig)
    yield made
    made.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_busy_server_says_how_long_to_wait(client: Kube, odd: type[OddServer]) -> None:
    odd.status, odd.headers_sent = 429, {"Retry-After": "7"}
    with pytest.raises(Unreachable) as caught:
        client.get(PODS, "a", namespace="n")
    assert caught.value.retry_after_seconds == 7


def test_an_answer_that_is_not_json_is_no_answer(client: Kube, odd: type[OddServer]) -> None:
    odd.body = b"<html>proxy</html>"
    with pytest.raises(Unreachable):
        client.get(PODS, "a", namespace="n")


def test_a_watch_that_is_told_its_version_is_too_old_is_gone(
    client: Kube, odd: type[OddServer]
) -> None:
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    odd.body = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    with pytest.raises(Gone, match="too old"):
        list(client.watch(PODS, resource_version="1"))


def test_a_watch_ends_when_its_server_is_silent_too_long(
    client: Kube, odd: type[OddServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SILENCE_SECONDS", 0.3)
    event = {"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "2"}}}
    odd.body, odd.silent_seconds = json.dumps(event).encode() + b"\n", 3.0
    began = time.monotonic()
    seen = [it.object["metadata"]["name"] for it in client.watch(PODS, resource_version="1")]
    assert seen == ["a"]
    assert time.monotonic() - began < 2


def test_no_credentials_are_told_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for kubeconfig in ("", str(tmp_path / "nowhere")):
        with pytest.raises(StartupError, match="set KUBECONFIG"):
            Kube(kubeconfig)
