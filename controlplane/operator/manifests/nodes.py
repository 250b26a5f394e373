"""A replica on several nodes: a LeaderWorkerSet, where that kind is installed.

It restarts the group as a whole and tells every pod its leader's address and its own number, which
the engines' commands use. Its pods talk to each other on any port, so a policy lets them.
"""

from controlplane.cluster import LEADER_WORKER_SETS, NETWORK_POLICIES, Object, Resource
from controlplane.crd.base import REPLICA_LABEL
from controlplane.crd.conditions import Reason
from controlplane.crd.replica import Replica
from controlplane.operator.manifests.pods import launch_of, pod_template
from controlplane.operator.manifests.settings import PodSettings
from controlplane.planner.refusal import Refused


def leader_worker_set(replica: Replica, settings: PodSettings) -> list[tuple[Resource, Object]]:
    """Return the objects of a replica on several nodes; pinned as `pods.engine_pods` says.

    Raises:
        Refused: its engine cannot run on its configuration, or the kind is not installed.
    """
    if not settings.leader_worker_sets:
        raise Refused(
            Reason.IMPOSSIBLE_GEOMETRY,
            f"{replica.spec.configuration.id} spans nodes: install LeaderWorkerSet, "
            "or choose a configuration on one node",
        )
    launch = launch_of(replica)
    leader = pod_template(replica, settings, launch)
    worker = pod_template(replica, settings, launch, leader=False)
    for template in (leader, worker):
        # The placements are one pod each: without this two pods could share a node.
        apart = {
            "labelSelector": {"matchLabels": {REPLICA_LABEL: replica.name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        template["spec"]["affinity"]["podAntiAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [apart]
        }
    group = {
        "size": launch.nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "leaderTemplate": leader,
        "workerTemplate": worker,
    }
    spec = {"replicas": 1, "leaderWorkerTemplate": group}
    body = {**_head(LEADER_WORKER_SETS, replica), "spec": spec}
    return [(LEADER_WORKER_SETS, body), (NETWORK_POLICIES, _peers(replica))]


def _peers(replica: Replica) -> Object:
    own = {"podSelector": {"matchLabels": {REPLICA_LABEL: replica.name}}}
    spec = {
        **own,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [own]}],
        "egress": [{"to": [own]}],
    }
    return {**_head(NETWORK_POLICIES, replica), "spec": spec}


def _head(resource: Resource, replica: Replica) -> Object:
    metadata = {
        "name": replica.name,
        "namespace": replica.namespace,
        "labels": {REPLICA_LABEL: replica.name},
        "ownerReferences": [replica.owner_reference()],
    }
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
