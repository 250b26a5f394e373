"""The profile of `flash` against the engine itself, started as its pod's container would be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.configurations import configuration, replica
from support.polling import until
from support.worker_process import free_port

from controlplane.operator.engines.openai import MODELS_PATH, parse_models
from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.settings import PodSettings

FLASH = ENGINES["flash"]
WORKER = (sys.executable, "-c", "from worker.cli import app; app()")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a tiny engine that runs a rendered command."""
    directory = tmp_path_factory.mktemp("weights") / "tiny"
    subprocess.run([*WORKER, "model", "tiny", str(directory)], check=True, capture_output=True)
    made = replica(where=configuration("cpu", 1), weights={"pvc": {"claim": "w", "path": "tiny"}})
    (pod,) = engine_pods(made, PodSettings())
    (container,) = pod["spec"]["containers"]
    port = free_port()
    process = subprocess.Popen(
        [*WORKER, *_local(container["command"][1:], directory, port)],
        env={**os.environ, "POD_IP": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            probe = container["startupProbe"]
            allowed_seconds = probe["periodSeconds"] * probe["failureThreshold"]
            until(lambda: _healthy(process, client), seconds=allowed_seconds, what="the engine")
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _local(command: list[str], directory: Path, port: int) -> list[str]:
    """The command as a kubelet would expand it, on this machine's disk and a free port."""
    instead = {"/weights/tiny": str(directory), "$(POD_IP)": "127.0.0.1", "8000": str(port)}
    return [instead.get(word, word) for word in command]


def _healthy(process: subprocess.Popen[str], client: httpx.Client) -> bool:
    assert process.poll() is None, process.stderr and process.stderr.read()
    try:
        return client.get(FLASH.health_path).status_code == 200
    except httpx.TransportError:
        return False


def test_it_completes_a_generation_under_the_deployments_name(engine: httpx.Client) -> None:
    path, body = FLASH.completion_request("deepseek-v4-flash@chat")
    answer = engine.post(path, json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 1
    refused = engine.post(path, json={**body, "model": "deepseek-v4-flash"})
    assert refused.status_code == 404


def test_it_tells_its_load_and_its_context(engine: httpx.Client) -> None:
    metrics = FLASH.parse_metrics(engine.get(FLASH.metrics_path).text)
    assert (metrics.running, metrics.waiting) == (0, 0)
    assert metrics.kv_usage is not None
    (model,) = parse_models(engine.get(MODELS_PATH).json())
    assert model == ("deepseek-v4-flash@chat", 32_768)
