"""What jobs count can be scraped."""

import os
import subprocess
from pathlib import Path

import httpx
from support.polling import until
from support.ports import free_port

from controlplane.supervisor.services import jobs_command


def test_a_worker_tells_its_metrics_on_the_port_it_is_given(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLASHPLANE_JOBS_METRICS_PORT": str(port),
    }

    def told() -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    worker = subprocess.Popen(
        jobs_command(), env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        text = until(told, seconds=20, what="the worker's metrics")
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    assert "flashplane_billing_discrepancies_total" in text
    assert "flashplane_usage_waiting" in text
