"""The cluster's GPU catalogue and what of it is free, copied for the API. Called by `projection`.

Stock is how many replicas a configuration has room for now, from nodes and reservations. It tells a
customer what to expect; the operator alone decides.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.cluster import CONFIG_MAPS, NODES, Cluster, Forbidden, NotFound, Object
from controlplane.crd.base import REPLICAS
from controlplane.crd.configuration import CATALOGUE_NAME, GPUConfiguration
from controlplane.deployments.models import OfferedConfiguration
from controlplane.deployments.objects import pages
from controlplane.planner import catalogue

_log = logging.getLogger(__name__)


def observe_catalogue(session: Session, cluster: Cluster, namespace: str) -> int:
    """Copy the catalogue and its stock; return how many entries changed.

    A catalogue that is not there, or cannot be read, changes nothing: missing is not empty. Stock
    is unknown where nodes may not be read.
    """
    configurations = _read(cluster, namespace)
    if configurations is None:
        return 0
    free = _stock(cluster, configurations)
    rows = {row.id: row for row in session.scalars(select(OfferedConfiguration))}
    changed = 0
    for position, configuration in enumerate(configurations):
        row = rows.pop(configuration.id, None)
        shown = (configuration.wire(), position, free[configuration.id])
        if row is None:
            session.add(OfferedConfiguration(id=configuration.id, **_fields(*shown)))
        elif (row.body, row.position, row.free_replicas) != shown:
            for name, value in _fields(*shown).items():
                setattr(row, name, value)
        else:
            continue
        changed += 1
    for gone in rows.values():
        session.delete(gone)
    return changed + len(rows)


def free_replicas(
    configurations: Iterable[GPUConfiguration], nodes: Iterable[Object], replicas: Iterable[Object]
) -> dict[str, int]:
    """Return how many replicas of each configuration have room on the nodes. Pure."""
    taken: Counter[str] = Counter()
    for replica in replicas:
        for placement in replica.get("status", {}).get("placements", ()):
            taken[placement["node"]] += placement["gpus"]
    usable = [node for node in nodes if _is_usable(node)]
    free = {}
    for configuration in configurations:
        rooms = [
            _gpus(node, configuration.resource) - taken[node["metadata"]["name"]]
            for node in usable
            if _has_labels(node, configuration.node_selector)
        ]
        each = configuration.gpus_per_node
        if configuration.nodes == 1:
            free[configuration.id] = sum(max(0, room) // each for room in rooms)
        else:
            free[configuration.id] = sum(room >= each for room in rooms) // configuration.nodes
    return free


def _read(cluster: Cluster, namespace: str) -> list[GPUConfiguration] | None:
    try:
        found = cluster.get(CONFIG_MAPS, CATALOGUE_NAME, namespace=namespace)
        return list(catalogue.parse(found.get("data", {}).get(catalogue.KEY, "")).values())
    except NotFound:
        return None
    except catalogue.InvalidCatalogue as error:
        _log.warning("catalogue_unreadable", extra={"reason": str(error)[:500]})
        return None


def _stock(
    cluster: Cluster, configurations: Iterable[GPUConfiguration]
) -> Mapping[str, int | None]:
    try:
        return free_replicas(configurations, pages(cluster, NODES), pages(cluster, REPLICAS))
    except Forbidden:
        return {configuration.id: None for configuration in configurations}


def _fields(body: Object, position: int, free: int | None) -> dict[str, Any]:
    return {"body": body, "position": position, "free_replicas": free}


def _is_usable(node: Object) -> bool:
    conditions: Iterable[Mapping[str, str]] = node.get("status", {}).get("conditions", ())
    ready = all(it["status"] == "True" for it in conditions if it["type"] == "Ready")
    return ready and not node.get("spec", {}).get("unschedulable", False)


def _gpus(node: Object, resource: str) -> int:
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def _has_labels(node: Object, wanted: Mapping[str, str]) -> bool:
    labels = node["metadata"].get("labels", {})
    return all(labels.get(name) == value for name, value in wanted.items())
