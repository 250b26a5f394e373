"""`flashplane operator` as a process: it waits for its kinds, one leads, and it ends as asked."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.kube_server import KubeServer
from support.polling import until

from controlplane.cluster import CRDS, LEASES, Object
from controlplane.crd import schema
from controlplane.kube import Kube
from controlplane.operator.main import LEASE_NAME
from controlplane.operator.schema_check import wrong_kinds

LEASE_SECONDS = 2


class Running:
    """An operator's process."""

    def __init__(self, server: KubeServer, namespace: str, identity: str, folder: Path) -> None:
        self.identity = identity
        self.log = folder / f"{identity}.log"
        environment = {
            **os.environ,
            "KUBECONFIG": str(server.kubeconfig),
            # Down: an operator does not need it to lead.
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "FLASHPLANE_OPERATOR_NAMESPACE": namespace,
            "FLASHPLANE_OPERATOR_IDENTITY": identity,
            "FLASHPLANE_OPERATOR_LEASE_SECONDS": str(LEASE_SECONDS),
            "FLASHPLANE_OPERATOR_PORT": str(free_port()),
        }
        self.url = f"http://127.0.0.1:{environment['FLASHPLANE_OPERATOR_PORT']}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "controlplane.cli", "operator"],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def status(self, path: str) -> int:
        """Return the status of one of its pages; 0: it does not listen."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def leads(self) -> bool:
        return "operator_leads" in self.log.read_text()

    def ends(self, seconds: float = 15) -> int:
        return self.process.wait(seconds)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Start = Callable[..., Running]


@pytest.fixture
def start(kube_server: KubeServer, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts operators that share a lease; those that still run are killed in the end."""
    started: list[Running] = []

    def begin(identity: str) -> Running:
        started.append(Running(kube_server, namespace, identity, tmp_path))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.wait()


def holder(cluster: Kube, namespace: str) -> str:
    lease: Object = cluster.get(LEASES, LEASE_NAME, namespace=namespace)
    return str(lease["spec"].get("holderIdentity", ""))


def test_one_of_two_leads_and_the_other_takes_over_when_it_ends(
    start: Start, cluster: Kube, namespace: str
) -> None:
    first = start("first")
    until(first.leads, seconds=30, what="the first to lead")
    second = start("second")
    until(lambda: second.status("/readyz") == 200, seconds=30, what="the second to be ready")
    assert holder(cluster, namespace) == "first"
    assert not second.leads()
    first.process.send_signal(signal.SIGTERM)
    assert first.ends() == 0
    until(second.leads, seconds=5, what="the second to lead")
    assert holder(cluster, namespace) == "second"
    assert b"flashplane_operator_leading 1.0" in page(second, "/metrics")


def page(running: Running, path: str) -> bytes:
    with urllib.request.urlopen(f"{running.url}{path}", timeout=5) as answer:
        return bytes(answer.read())


def test_whoever_was_frozen_past_its_lease_ends_and_does_not_act(
    start: Start, cluster: Kube, namespace: str
) -> None:
    first = start("first")
    until(first.leads, seconds=30, what="the first to lead")
    first.process.send_signal(signal.SIGSTOP)
    second = start("second")
    until(second.leads, seconds=30, what="the second to lead")
    first.process.send_signal(signal.SIGCONT)
    assert first.ends() == 1
    assert holder(cluster, namespace) == "second"


def test_it_waits_for_its_kinds_and_says_what_is_wrong(
    start: Start, cluster: Kube, namespace: str
) -> None:
    definition = schema.definitions(rules=False)[0]
    name = definition["metadata"]["name"]
    annotation = {"metadata": {"annotations": {schema.HASH_ANNOTATION: "older"}}}
    cluster.patch(CRDS, name, annotation)
    try:
        assert f"{name} is of another version" in wrong_kinds(cluster)
        waiting = start("waiting")
        until(lambda: waiting.status("/healthz") == 200, seconds=30, what="it to listen")
        until(lambda: b"flashplane-crds" in refusal(waiting), seconds=10, what="it to tell")
        assert not waiting.leads()
        assert waiting.process.poll() is None
    finally:
        cluster.apply(CRDS, definition)
    until(waiting.leads, seconds=30, what="it to lead")


def refusal(running: Running) -> bytes:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{running.url}/readyz", timeout=5)
    with caught.value as error:
        return bytes(error.read())
