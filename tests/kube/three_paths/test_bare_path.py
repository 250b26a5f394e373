"""Bare endpoints: ordered, entered, stopped and started; nothing of a customer is left on a GPU."""

import time

import asyncssh
import pytest
from support.kube_objects import make_namespace
from support.polling import until
from support.site import PROVEN_SECONDS, Site
from support.streaming import customer

from controlplane.cluster import NAMESPACES, NODES, PODS, NotFound
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, TENANT_LABEL, Path
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.deployments.models import Deployment
from controlplane.operator.capacity.nodes import QUARANTINE_ANNOTATION
from controlplane.ssh_gateway.directory import Directory


@pytest.fixture(scope="module")
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


def ready(site: Site, box: Deployment) -> GPUEndpoint:
    def is_ready() -> bool:
        found = site.endpoint(box)
        return found is not None and found.status.phase == "Ready"

    until(is_ready, seconds=60, what="the endpoint to be ready")
    found = site.endpoint(box)
    assert found is not None
    return found


def last_a_while(site: Site, box: Deployment) -> None:
    """Let the newest lease be so old that it costs something."""
    since = site.lives(box)[-1].at["Serving"]
    until(lambda: time.time() > since + PROVEN_SECONDS, seconds=10, what="time to pass")


def test_an_endpoint_is_entered_stopped_started_and_left_clean(
    site: Site, key: asyncssh.SSHKey
) -> None:
    keys = [{"name": "laptop", "publicKey": key.export_public_key().decode().strip()}]
    spec = {"configurations": ["cpu-tiny"], "command": ["sleep", "3600"], "sshKeys": keys}
    with customer(site.url, site.customer.token) as http:
        body = {"name": "box", "path": "bare", "spec": spec}
        answer = http.post("/v1/deployments", json=body)
        assert answer.status_code == 201, answer.text
        where = f"/v1/deployments/{answer.json()['id']}"
        box = site.find(answer.json()["id"])
        ready(site, box)

        directory = Directory()
        directory.update(site.kube.get(ENDPOINTS, "box", namespace=box.namespace))
        grant = directory.authorize("box", key.get_fingerprint())
        assert grant is not None
        door = directory.door(grant)
        assert door is not None
        pod = site.kube.get(PODS, door.pod, namespace=box.namespace)
        assert pod["status"]["phase"] == "Running"

        last_a_while(site, box)
        http.patch(where, json={"spec": {"state": "Stopped"}})
        until(lambda: http.get(where).json()["phase"] == "Stopped", seconds=60, what="the stop")
        directory.update(site.kube.get(ENDPOINTS, "box", namespace=box.namespace))
        assert directory.authorize("box", key.get_fingerprint()) is None
        assert site.pods(box) == []
        assert site.chronicle.reserved() == {}

        http.patch(where, json={"spec": {"state": "Running"}})
        ready(site, box)
        last_a_while(site, box)
        assert http.delete(where).status_code == 202
        site.gone(box)
    assert len(site.lives(box)) == 2
    for life in site.lives(box):
        proof = life.replica.status.scrub
        assert proof is not None
        assert proof.ok
        # The customer's pod, and the one that looked after it.
        assert site.chronicle.pods_of(life) == 2
    assert len(site.billed(box)) == 2
    assert site.books() == []
    assert site.writes_at_rest() == {}


def test_a_namespace_deleted_by_hand_ends_everything_in_it_quietly(site: Site) -> None:
    tenant = str(site.shop.customer(10**15).tenant_id)
    name = f"by-hand-{tenant[:8]}"
    with site.nodes("doubtful"):
        make_namespace(site.kube, name, {TENANT_LABEL: tenant})
        box = {"tenant": tenant, "configurations": ["cpu-fleeting"], "command": ["sleep", "3600"]}
        site.kube.create(ENDPOINTS, GPUEndpoint.body(name, "box", spec=box))
        bot = {
            "path": Path.DEDICATED,
            "tenant": tenant,
            "configurations": ["cpu-tiny"],
            "weights": {"pvc": {"claim": "tiny"}},
            "replicas": 1,
        }
        site.kube.create(DEPLOYMENTS, InferenceDeployment.body(name, "bot", spec=bot))
        ready(site, Deployment(namespace=name, name="box"))
        until(lambda: site.chronicle.of(name, "bot"), seconds=30, what="a replica")
        before = sum(site.operators.writes().values())
        site.kube.delete(NAMESPACES, name)

        def is_gone() -> bool:
            try:
                return not site.kube.get(NAMESPACES, name)
            except NotFound:
                return True

        until(is_gone, seconds=90, what="the namespace to go")
        assert all(it.over for it in site.chronicle.of(name, "bot"))
        assert all(it.over for it in site.chronicle.of(name, "box"))
        # No pod could be made to prove it clean, so it is nobody's until a person says so.
        node = site.kube.get(NODES, "doubtful")
        assert QUARANTINE_ANNOTATION in node["metadata"]["annotations"]
        assert sum(site.operators.writes().values()) - before < 60
        assert site.writes_at_rest() == {}
        site.kube.delete(NODES, "doubtful")
