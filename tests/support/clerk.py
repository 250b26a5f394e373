"""What the jobs do, for tests of other things: projection, metering and settlement in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from support import release
from support.kube_server import KubeServer
from support.release import NAMESPACE
from support.shop import Shop

from controlplane.billing.gpu import intervals
from controlplane.cluster import ClusterError
from controlplane.deployments import projection
from controlplane.kube import Kube
from controlplane.store import open_store

CLERK_SECONDS = 0.5


class Clerk:
    """One thread."""

    def __init__(self, shop: Shop, cluster: Kube, redis_url: str) -> None:
        self._shop = shop
        self._cluster = cluster
        self._store = open_store(redis_url)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        while not self._stopping.wait(CLERK_SECONDS):
            with suppress(ClusterError):  # the API server is away: again later
                self._project()
            self._meter()
            self._shop.settle()

    def _project(self) -> None:
        with self._shop.sessions.begin() as session:
            projection.project(session, self._cluster)
        with self._shop.sessions.begin() as session:
            projection.observe(session, self._cluster, catalogue_namespace=NAMESPACE)

    def _meter(self) -> None:
        proofs = intervals.proofs(self._store)
        with self._shop.sessions.begin() as session:
            intervals.extend(session, proofs, datetime.now(UTC))
        intervals.acknowledge(self._store, proofs)
        with self._shop.sessions.begin() as session:
            while intervals.charge(session, datetime.now(UTC)):
                pass


@contextmanager
def clerk(server: KubeServer, shop: Shop, redis_url: str) -> Iterator[None]:
    """Run the jobs with the rights that the chart gives them."""
    cluster = Kube(release.kubeconfig(server, "jobs"))
    running = Clerk(shop, cluster, redis_url)
    try:
        yield
    finally:
        running.stop()
        cluster.close()
