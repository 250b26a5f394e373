"""`flashplane gateway` as a process, with the customers' REST API."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from support.polling import until
from support.ports import free_port
from support.shop import PEPPER


@contextmanager
def gateway(database_url: str, redis_url: str, folder: pathlib.Path) -> Iterator[str]:
    """Run a gateway with the customers' REST API; give its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLASHPLANE_KEY_PEPPER": PEPPER.decode(),
        "FLASHPLANE_JOURNAL_DIR": str(folder / "journal"),
        "FLASHPLANE_DEFAULT_WEIGHTS": '{"pvc": {"claim": "tiny"}}',
        "FLASHPLANE_HOLD_SILENCE_SECONDS": "0",
        "FLASHPLANE_SHUTDOWN_GRACE_SECONDS": "1",
    }
    command = [sys.executable, "-m", "controlplane.cli", "gateway", "--port", str(port)]
    with open(folder / "gateway.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def is_ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/health", timeout=1, trust_env=False).status_code == 200
        return False

    try:
        until(is_ready, seconds=60, what="the gateway to be ready")
        yield url
    finally:
        process.terminate()
        process.wait(20)
