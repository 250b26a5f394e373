"""A worker's HTTP server in a thread of the test process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from support.polling import until

from worker.server.app import create_app
from worker.server.generation import Serving


@contextmanager
def served(serving: Serving) -> Iterator[str]:
    """Serve on a free loopback port; yields the base URL once it is healthy."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(
        uvicorn.Config(create_app(serving), log_config=None, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: healthy(url), seconds=30, what="the worker is healthy")
        yield url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def healthy(url: str) -> bool:
    """Whether the worker at `url` answers 200."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
