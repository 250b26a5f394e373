"""Rendered pods, run as processes by the kubelet's stand-in: the real engine, and real failures."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.configurations import configuration, replica
from support.polling import until
from support.weights_server import REPO, sha256, weights_server

from controlplane.cluster import NAMESPACES, PODS, Object
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Phase
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.objects import LocalCluster
from controlplane.local.volumes import Disks
from controlplane.operator.engines.openai import MODELS_PATH, parse_models
from controlplane.operator.engines.profile import ENGINES
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.progress import stage
from controlplane.operator.manifests.settings import ENGINE_PORT, PodSettings
from controlplane.operator.replica.workload import Progress

REPOSITORY = Path(__file__).parents[3]
NAMESPACE = "acme"
FLASH = ENGINES["flash"]
TINY: Object = {"pvc": {"claim": "w", "path": "tiny"}}
DIGEST = "sha256:" + sha256(f"{sha256(b'{}')}  config.json\n".encode())
CPU = configuration("cpu", 1, cpu="1", memory="1Gi")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model in `tiny`."""
    folder = tmp_path_factory.mktemp("claim")
    write = "from worker.cli import app; app()"
    command = [sys.executable, "-c", write, "model", "tiny", str(folder / "tiny")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """One in memory, with the tenant's namespace."""
    made = LocalCluster()
    made.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    yield made
    made.close()


@pytest.fixture
def kubelet(cluster: LocalCluster, tiny: Path, tmp_path: Path) -> Iterator[Kubelet]:
    """Runs pods on the node `node-a`; the claim `w` is the folder of the tiny model."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    running = Kubelet(
        cluster,
        [LocalNode("node-a", {"flashplane.io/tiny": 1})],
        disks=Disks(tmp_path, {"w": tiny}),
        environment={"PATH": path, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    running.start()
    yield running
    running.stop(grace_seconds=5)


def engine_pod(weights: Object = TINY, **container: Any) -> Object:
    """The pod of a replica on a CPU, with other fields of its container."""
    made = replica(where=CPU, weights=weights, drainTimeoutSeconds=1)
    (pod,) = engine_pods(made, PodSettings())
    pod["spec"]["containers"][0] |= container
    pod["spec"]["terminationGracePeriodSeconds"] = 1
    del pod["metadata"]["ownerReferences"]  # there is no such replica, and so no such pod
    return pod


class Watched:
    """A pod in the cluster; every stage it was seen in."""

    def __init__(self, cluster: LocalCluster, pod: Object) -> None:
        self._cluster = cluster
        self._name = pod["metadata"]["name"]
        self.phases: list[Phase] = []
        cluster.create(PODS, pod)

    def pod(self) -> Object:
        return self._cluster.get(PODS, self._name, namespace=NAMESPACE)

    def look(self) -> Progress:
        progress = stage([self.pod()])
        if self.phases[-1:] != [progress.phase]:
            self.phases.append(progress.phase)
        return progress


def failed(watched: Watched) -> Progress:
    """How it went wrong."""

    def reason() -> Progress | None:
        progress = watched.look()
        return progress if progress.reason is not None else None

    found = until(reason, seconds=60, what="a failure")
    assert found is not None
    return found


def test_an_engine_loads_and_completes_a_generation(
    cluster: LocalCluster, kubelet: Kubelet
) -> None:
    watched = Watched(cluster, engine_pod())
    until(lambda: watched.look().phase is Phase.PROBING, seconds=90, what="a ready engine")
    order = [Phase.RESERVED, Phase.SCHEDULED, Phase.LOADING, Phase.PROBING]
    assert watched.phases == [it for it in order if it in watched.phases]
    assert Phase.LOADING in watched.phases
    address = f"http://{watched.pod()['status']['podIP']}:{ENGINE_PORT}"
    with httpx.Client(base_url=address, timeout=30) as client:
        path, body = FLASH.completion_request("deepseek-v4-flash@chat")
        assert client.post(path, json=body).json()["usage"]["completion_tokens"] == 1
        # It answers to its whole name only.
        assert client.post(path, json={**body, "model": "deepseek-v4-flash"}).status_code == 404
        metrics = FLASH.parse_metrics(client.get(FLASH.metrics_path).text)
        assert (metrics.running, metrics.waiting) == (0, 0)
        assert metrics.kv_usage is not None
        (model,) = parse_models(client.get(MODELS_PATH).json())
        assert model == ("deepseek-v4-flash@chat", 32_768)


def test_an_engine_without_weights_fails_with_its_own_words(
    cluster: LocalCluster, kubelet: Kubelet
) -> None:
    progress = failed(Watched(cluster, engine_pod({"pvc": {"claim": "w", "path": "nothing"}})))
    assert progress.reason is Reason.ENGINE_FAILED
    assert "config.json" in progress.message


@pytest.mark.parametrize("from_hub", [True, False], ids=["fetched", "on a claim"])
def test_weights_are_there_and_checked_before_the_engine_starts(
    cluster: LocalCluster, kubelet: Kubelet, tiny: Path, from_hub: bool
) -> None:
    """What stands for the engine looks for a file where the engine would."""
    with weights_server({"config.json": b"{}"}) as hub:
        if from_hub:
            there = {"hub": {"repo": REPO, "endpoint": hub.url}, "digest": DIGEST}
        else:
            (tiny / "small").mkdir()
            (tiny / "small" / "config.json").write_bytes(b"{}")
            there = {"pvc": {"claim": "w", "path": "small"}, "digest": DIGEST}
        pod = engine_pod(there)
        directory = pod["spec"]["containers"][0]["command"][2]
        look = f"test -f {directory}/config.json && exec sleep 1000"
        pod["spec"]["containers"][0]["command"] = ["sh", "-c", look]
        watched = Watched(cluster, pod)
        until(lambda: watched.look().phase is Phase.LOADING, seconds=60, what="weights")
    assert Phase.FETCHING in watched.phases
    assert watched.look().reason is None


def test_other_weights_than_those_asked_for_are_refused(
    cluster: LocalCluster, kubelet: Kubelet
) -> None:
    with weights_server({"config.json": b"{ }"}) as hub:
        there = {"hub": {"repo": REPO, "endpoint": hub.url}, "digest": DIGEST}
        progress = failed(Watched(cluster, engine_pod(there)))
    assert progress.reason is Reason.WEIGHTS_UNAVAILABLE
    assert "other weights" in progress.message


def test_an_image_that_cannot_be_pulled_is_told(cluster: LocalCluster, kubelet: Kubelet) -> None:
    kubelet.missing_images.add("registry/gone")
    progress = failed(Watched(cluster, engine_pod(image="registry/gone")))
    assert progress.reason is Reason.IMAGE_UNAVAILABLE
    assert "registry/gone" in progress.message


def test_one_that_never_comes_up_is_killed_and_has_timed_out(
    cluster: LocalCluster, kubelet: Kubelet
) -> None:
    probe = {"tcpSocket": {"port": ENGINE_PORT}, "periodSeconds": 1, "failureThreshold": 2}
    pod = engine_pod(command=["sleep", "1000"], startupProbe=probe)
    assert failed(Watched(cluster, pod)).reason is Reason.START_TIMED_OUT
