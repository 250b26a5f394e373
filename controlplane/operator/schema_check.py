"""Are the cluster's kinds those of this version? The operator waits until they are. For `main`.

Helm never upgrades CRDs that are there. An operator that wrote fields which the API server prunes
would plan from half of what it wrote, so it does nothing before the kinds are current.
"""

import logging
import threading
from collections.abc import Callable

from controlplane.cluster import CRDS, Cluster, ClusterError, NotFound, Object
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.crd.schema import HASH_ANNOTATION, schema_hash
from controlplane.operator.runtime.metrics import SCHEMA_CURRENT

RETRY_SECONDS = 3.0
NAMES = tuple(f"{it.plural}.{it.group}" for it in (DEPLOYMENTS, ENDPOINTS, REPLICAS))
_log = logging.getLogger(__name__)


def wrong_with(definition: Object | None) -> str:
    """Return what keeps this version from working with a CustomResourceDefinition; empty: nothing.

    Args:
        definition: as the API server has it; None: it is not installed.
    """
    if definition is None:
        return "not installed"
    served = definition["metadata"].get("annotations", {}).get(HASH_ANNOTATION, "unknown")
    if served != schema_hash():
        return f"of another version: its schema is {served}, this operator's is {schema_hash()}"
    conditions = definition.get("status", {}).get("conditions", ())
    if not any(it["type"] == "Established" and it["status"] == "True" for it in conditions):
        return "not served yet"
    return ""


def wrong_kinds(cluster: Cluster) -> str:
    """Return one sentence that says which kinds are wrong and what to do; empty: none.

    Raises:
        ClusterError: the API server does not answer.
    """
    wrong = []
    for name in NAMES:
        try:
            definition: Object | None = cluster.get(CRDS, name)
        except NotFound:
            definition = None
        if problem := wrong_with(definition):
            wrong.append(f"{name} is {problem}")
    if not wrong:
        return ""
    return f"{'; '.join(wrong)}. Install or upgrade the chart flashplane-crds of this version."


def wait_until_current(
    cluster: Cluster, stop: threading.Event, tell: Callable[[str], None]
) -> bool:
    """Wait until the kinds are this version's; False: `stop` was set before.

    Args:
        tell: called with each new problem.
    """
    told = None
    while not stop.is_set():
        try:
            problem = wrong_kinds(cluster)
        except ClusterError as error:
            problem = f"The API server does not answer: {type(error).__name__}"
        SCHEMA_CURRENT.set(0 if problem else 1)
        if not problem:
            return True
        if problem != told:
            _log.error("kinds_not_current", extra={"reason": problem})
            tell(problem)
            told = problem
        stop.wait(RETRY_SECONDS)
    return False
