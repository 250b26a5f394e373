"""The local replica's heartbeat, on a real Valkey and a small health endpoint."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import redis

from controlplane.registry import replicas
from controlplane.registry.replicas import Replica
from controlplane.supervisor.heartbeat import Heartbeat


class HealthServer(ThreadingHTTPServer):
    """Answers /health with `status`; what a worker says when all is well, or is not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HealthHandler)
        self.status = 200
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HealthHandler(BaseHTTPRequestHandler):
    server: HealthServer

    def do_GET(self) -> None:
        self.server.asked += 1
        body = json.dumps({"status": "ok", "model": "m", "max_model_len": 4096}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def worker() -> Iterator[HealthServer]:
    server = HealthServer()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published(redis_url: str) -> Iterator[Callable[[], list[Replica]]]:
    with redis.Redis.from_url(redis_url) as store:
        yield lambda: replicas.read(store, time.time())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_replica_is_there_while_its_worker_is_healthy(
    worker: HealthServer, redis_url: str, published: Callable[[], list[Replica]]
) -> None:
    heartbeat = Heartbeat(redis_url, worker.url, path="serverless")
    heartbeat.start()
    eventually(lambda: len(published()) == 1)
    replica = published()[0]
    assert (replica.url, replica.model, replica.max_model_len) == (worker.url, "m", 4096)
    worker.status = 503
    eventually(lambda: published() == [])
    worker.status = 200
    eventually(lambda: len(published()) == 1)
    heartbeat.stop()
    assert published() == []


def test_a_worker_that_is_not_there_is_not_published(
    redis_url: str, published: Callable[[], list[Replica]]
) -> None:
    heartbeat = Heartbeat(redis_url, "http://127.0.0.1:9", path="serverless")
    heartbeat.start()
    heartbeat.stop()
    assert published() == []


def test_a_store_that_is_not_there_stops_nothing(worker: HealthServer) -> None:
    heartbeat = Heartbeat("unix:///nowhere/valkey", worker.url, path="serverless")
    heartbeat.start()
    eventually(lambda: worker.asked >= 2)  # the first beat's failure did not end it
    heartbeat.stop()
