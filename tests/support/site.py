"""The whole product on a real API server: operators, gateway, jobs, money, and nodes to run pods.

Pods are processes of this machine: `local.kubelet` is every node. The operators and the projection
have the rights that the chart gives them, and nothing else.
"""

import os
import pathlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import select
from support import release
from support.books import violations
from support.chronicle import Chronicle, Life, chronicle
from support.clerk import clerk
from support.gateway_process import gateway
from support.kube_server import KubeServer
from support.operators import Operators
from support.polling import until
from support.release import NAMESPACE
from support.shop import HIT_P, MISS_P, OUTPUT_P, Customer, Shop
from support.streaming import customer, stream

from controlplane.cluster import PODS, NotFound, Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, OWNER_LABEL, Path
from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.db import open_engine, session_factory
from controlplane.deployments import orders, rows
from controlplane.deployments.models import Deployment, GpuInterval
from controlplane.deployments.orders import Order, Terms
from controlplane.kube import Kube
from controlplane.local.kubelet import Kubelet, LocalNode
from controlplane.local.volumes import Disks
from controlplane.money import P_PER_USD
from controlplane.pricing import book, gpu
from controlplane.pricing.rating import gpu_time_p

TINY = "flashplane.io/tiny"
FLEETING = "flashplane.io/fleeting"  # of nodes that tests take away
WEIGHTS = {"pvc": {"claim": "tiny"}}
TERMS = Terms(NAMESPACE, WEIGHTS)
RATE_P = 36 * P_PER_USD  # an hour; a cent a second
LEASE_SECONDS = 3
QUIET_SECONDS = 3.0
SERVING_SECONDS = 120.0
PROVEN_SECONDS = 5.0  # whoever serves for so long is proven to


def configuration(name: str, resource: str) -> GPUConfiguration:
    """One CPU that is sold as a GPU."""
    return GPUConfiguration(
        id=name,
        gpu="CPU",
        architecture="cpu",
        memory_gib=8,
        resource=resource,
        cpu="1",
        memory="1Gi",
        hourly_usd=0.01,
    )


CATALOGUE = (configuration("cpu-tiny", TINY), configuration("cpu-fleeting", FLEETING))


@dataclass
class Site:
    """A cluster with the product on it. Orders of `place` are a platform admin's."""

    server: KubeServer
    kube: Kube
    operators: Operators
    shop: Shop
    customer: Customer
    url: str
    chronicle: Chronicle
    folder: pathlib.Path
    weights: pathlib.Path
    database_url: str

    def place(
        self, name: str, path: str, tenant: Customer | None = None, **spec: Any
    ) -> Deployment:
        """Order a deployment; without a tenant a pool, whose model has its name."""
        if tenant is None:
            with self.shop.sessions.begin() as session:
                rates = {"hit_rate_p": HIT_P, "miss_rate_p": MISS_P, "output_rate_p": OUTPUT_P}
                book.publish(session, model=name, **rates)
            spec["model"] = name
        whole = {"configurations": ["cpu-tiny"], **spec}
        tenant_id = None if tenant is None else tenant.tenant_id
        order = Order(tenant_id, name, Path(path), whole, by_tenant=False)
        with self.shop.sessions.begin() as session:
            return orders.place(session, order, TERMS)

    def change(self, row: Deployment, **spec: Any) -> None:
        """Change a spec by a merge patch, as a platform admin."""
        with self.shop.sessions.begin() as session:
            locked = rows.get(session, deployment_id=row.id, tenant_id=None, to_change=True)
            orders.change(session, locked, spec, by_tenant=False)

    def delete(self, row: Deployment) -> None:
        """Delete a deployment and wait until the cluster has nothing of it."""
        with self.shop.sessions.begin() as session:
            locked = rows.get(session, deployment_id=row.id, tenant_id=None, to_change=True)
            rows.delete(session, locked)
        self.gone(row)

    def gone(self, row: Deployment) -> None:
        """Wait until the row says that all is over, and check that it is."""
        until(lambda: self.row(row).state == "deleted", seconds=60, what=f"{row.name} to end")
        what = f"the last words of {self.tell(row)}"
        # A watch that was cut off for a while tries again less and less often.
        until(lambda: all(it.over for it in self.lives(row)), seconds=40, what=what)
        assert self.pods(row) == []

    def row(self, row: Deployment) -> Deployment:
        """Return the row as it is now."""
        return self.find(row.id)

    def find(self, deployment_id: uuid.UUID | str) -> Deployment:
        """Return a row by its id."""
        with self.shop.sessions.begin() as session:
            return session.get_one(Deployment, deployment_id)

    def deployment(self, row: Deployment) -> InferenceDeployment | None:
        """Return the object; None: it is not there."""
        with suppress(NotFound):
            body = self.kube.get(DEPLOYMENTS, row.name, namespace=row.namespace)
            return InferenceDeployment.of(body)
        return None

    def endpoint(self, row: Deployment) -> GPUEndpoint | None:
        """Return the object; None: it is not there."""
        with suppress(NotFound):
            return GPUEndpoint.of(self.kube.get(ENDPOINTS, row.name, namespace=row.namespace))
        return None

    def when(
        self,
        row: Deployment,
        what: Callable[[InferenceDeployment], object],
        *,
        seconds: float = SERVING_SECONDS,
    ) -> InferenceDeployment:
        """Return a deployment as soon as `what` holds of it."""
        last: InferenceDeployment | None = None

        def holds() -> bool:
            nonlocal last
            last = self.deployment(row)
            return last is not None and bool(what(last))

        try:
            until(holds, seconds=seconds, what=f"{row.name} to be so")
        except AssertionError as error:
            told = last.status.model_dump_json(exclude_defaults=True) if last else "not there"
            raise AssertionError(f"{error}; it is {told}; {self.tell(row)}") from None
        assert last is not None
        return last

    def serving(self, row: Deployment, replicas: int = 1) -> InferenceDeployment:
        """Return a deployment as soon as so many of its replicas serve, and no others are there."""
        return self.when(
            row, lambda it: (it.status.serving, it.status.replicas) == (replicas, replicas)
        )

    def answering(self, pool: Deployment) -> None:
        """Wait until the gateway has heard of a pool that serves: it is told within a second."""
        with customer(self.url, self.customer.token) as http:

            def answers() -> bool:
                seen = stream(http, pool.name, tokens=1)
                return seen.done and seen.error is None

            until(answers, seconds=10, what=f"the gateway to know {pool.name}")

    def lives(self, row: Deployment) -> list[Life]:
        """Return what its replicas have been."""
        return self.chronicle.of(row.namespace, row.name)

    def tell(self, row: Deployment) -> str:
        """Return the lives of its replicas in words, for whoever reads a failed test."""
        return "; ".join(
            f"{it.replica.name}: {' '.join(it.phases)} {it.replica.status.failure or ''}"
            for it in self.lives(row)
        )

    def pods(self, row: Deployment) -> list[Object]:
        """Return the pods there are of a deployment."""
        labels = f"{OWNER_LABEL}={row.name}"
        return self.kube.list(PODS, namespace=row.namespace, labels=labels).items

    def models(self, key: str) -> list[str]:
        """Return what the gateway offers to whoever has this key."""
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False) as http:
            return [it["id"] for it in http.get("/v1/models").json()["data"]]

    def intervals(self, row: Deployment) -> list[GpuInterval]:
        """Return the proven GPU time of a deployment, the oldest first."""
        wanted = select(GpuInterval).where(GpuInterval.deployment_id == row.id)
        with self.shop.sessions.begin() as session:
            return list(session.scalars(wanted.order_by(GpuInterval.started_at)))

    def billed(self, row: Deployment) -> list[GpuInterval]:
        """Return the GPU time of a deployment that is over, checked: what was proven is billed, and
        every replica that served for a moment has its own, while it was seen to serve."""

        served = {it.replica.uid: it for it in self.lives(row) if "Serving" in it.phases}
        long = {uid for uid, it in served.items() if it.seconds_in("Serving") > PROVEN_SECONDS}

        def is_whole() -> bool:
            found = self.intervals(row)
            return long <= {str(it.id) for it in found} and all(
                it.ended_at and it.billed_ms == it.proven_ms for it in found
            )

        until(is_whole, seconds=20, what=f"the bill to be whole of {self.tell(row)}")
        found = self.intervals(row)
        assert {str(it.id) for it in found} <= served.keys()
        for interval in found:
            seen = served[str(interval.id)].at
            assert interval.billed_p == gpu_time_p(interval.rate_p_per_hour, interval.billed_ms)
            # A watch tells a little late.
            assert interval.started_at.timestamp() > seen["Serving"] - 1
            assert interval.proven_until.timestamp() < seen["Stopping"] + 0.5
        return found

    def books(self) -> list[str]:
        """Return what is wrong with the books once nothing waits to be settled."""
        with suppress(AssertionError):
            until(lambda: not violations(self.database_url), seconds=10, what="exact books")
        return violations(self.database_url)

    def writes_at_rest(self) -> dict[str, float]:
        """Return what the operator writes in a while in which nothing happens."""
        before = self.operators.writes()
        time.sleep(QUIET_SECONDS)  # silence cannot be awaited
        after = self.operators.writes()
        return {name: value for name, value in after.items() if value != before.get(name)}

    @contextmanager
    def nodes(self, *names: str, resource: str = FLEETING) -> Iterator[Kubelet]:
        """Keep further nodes of one GPU each while inside."""
        offered = [LocalNode(name, {resource: 1}) for name in names]
        for name in names:
            self.chronicle.expect(name, 1)
        with kubelet(self.kube, offered, self.folder / "-".join(names), self.weights) as running:
            yield running


@contextmanager
def kubelet(
    cluster: Kube, nodes: list[LocalNode], folder: pathlib.Path, weights: pathlib.Path
) -> Iterator[Kubelet]:
    """Run nodes; the claim `tiny` is the folder `weights`."""
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "HOME") if name in os.environ}
    running = Kubelet(
        cluster,
        nodes,
        disks=Disks(folder, {"tiny": weights}),
        environment={**kept, "PATH": path, "OMP_NUM_THREADS": "1"},
    )
    running.start()
    try:
        yield running
    finally:
        running.stop(grace_seconds=2)


@contextmanager
def operators(server: KubeServer, redis_url: str, folder: pathlib.Path) -> Iterator[Operators]:
    """Run two operators with the environment and the rights that the chart gives them."""
    catalogue = {"configurations": [it.wire() for it in CATALOGUE]}
    given = release.rights(server, catalogue=catalogue)
    environment = {
        **given,
        "KUBECONFIG": str(release.kubeconfig(server, "operator")),
        "REDIS_URL": redis_url,
        "FLASHPLANE_OPERATOR_LEASE_SECONDS": str(LEASE_SECONDS),
    }
    running = Operators(environment, folder)
    try:
        until(running.leaders, seconds=60, what="an operator to lead")
        yield running
    finally:
        running.stop()


@contextmanager
def site(
    server: KubeServer,
    database_url: str,
    redis_url: str,
    folder: pathlib.Path,
    weights: pathlib.Path,
) -> Iterator[Site]:
    """Run all of it: two nodes of four tiny GPUs each, one customer with money."""
    engine = open_engine(database_url, pool_size=10)
    shop = Shop(session_factory(engine))
    with shop.sessions.begin() as session:
        for it in CATALOGUE:
            gpu.publish(session, configuration=it.id, kind="on_demand", rate_p_per_hour=RATE_P)
    kube = Kube(server.kubeconfig)
    nodes = [LocalNode(name, {TINY: 4}) for name in ("one", "two")]
    with (
        chronicle(server) as written,
        operators(server, redis_url, folder) as running,
        kubelet(kube, nodes, folder / "pods", weights),
        clerk(server, shop, redis_url),
        gateway(database_url, redis_url, folder) as url,
    ):
        for node in nodes:
            written.expect(node.name, node.allocatable[TINY])
        buyer = shop.customer(1000 * P_PER_USD)
        yield Site(server, kube, running, shop, buyer, url, written, folder, weights, database_url)
    kube.close()
    engine.dispose()
