"""Orders in a database and a cluster to project them onto."""

from typing import Any

import yaml
from support.orders import BARE, DEDICATED, stock
from support.shop import Shop

from controlplane.cluster import CONFIG_MAPS, NODES, Cluster, Object, Resource
from controlplane.crd.base import Path
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration
from controlplane.deployments import orders, rows
from controlplane.deployments.models import Deployment
from controlplane.deployments.orders import Order, Terms
from controlplane.deployments.projection import observe, project
from controlplane.deployments.specs import Json

TERMS = Terms("flashplane", {"pvc": {"claim": "weights"}})


class Projector:
    """One customer's orders and the cluster; each method is one transaction."""

    def __init__(self, shop: Shop, cluster: Cluster, namespace: str = "flashplane") -> None:
        self.shop = shop
        self.cluster = cluster
        self.namespace = namespace
        self.customer = shop.customer(10**15)
        with shop.sessions.begin() as session:
            stock(session)

    def order(self, path: str = "dedicated", name: str = "bot") -> Deployment:
        spec = DEDICATED if path == "dedicated" else BARE
        return self._place(Order(self.customer.tenant_id, name, Path(path), spec, by_tenant=True))

    def pool(self, name: str = "pool") -> Deployment:
        return self._place(Order(None, name, Path.SERVERLESS, DEDICATED, by_tenant=False))

    def _place(self, order: Order) -> Deployment:
        terms = Terms(self.namespace, TERMS.default_weights)
        with self.shop.sessions.begin() as session:
            return orders.place(session, order, terms)

    def change(self, row: Deployment, merge: Json) -> None:
        with self.shop.sessions.begin() as session:
            locked = rows.get(session, deployment_id=row.id, tenant_id=None, to_change=True)
            orders.change(session, locked, merge, by_tenant=True)

    def delete(self, row: Deployment) -> None:
        with self.shop.sessions.begin() as session:
            locked = rows.get(session, deployment_id=row.id, tenant_id=None, to_change=True)
            rows.delete(session, locked)

    def row(self, row: Deployment) -> Deployment:
        with self.shop.sessions.begin() as session:
            return session.get_one(Deployment, row.id)

    def project(self) -> int:
        with self.shop.sessions.begin() as session:
            return project(session, self.cluster)

    def observe(self) -> int:
        with self.shop.sessions.begin() as session:
            return observe(session, self.cluster, catalogue_namespace=self.namespace)

    def say(self, resource: Resource, row: Deployment, status: dict[str, Any]) -> None:
        """Write a status, as the operator does."""
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"namespace": row.namespace, "name": row.name},
            "status": status,
        }
        self.cluster.apply_status(resource, body)

    def offer(self, *configurations: GPUConfiguration) -> None:
        """Write the catalogue."""
        listed = {"configurations": [it.wire() for it in configurations]}
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": self.namespace, "name": CATALOGUE_NAME},
            "data": {"catalogue.yaml": yaml.safe_dump(listed)},
        }
        self.cluster.apply(CONFIG_MAPS, body)

    def node(self, name: str, gpus: int) -> None:
        """Add a node with GPUs."""
        body: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}},
        }
        self.cluster.create(NODES, body)
