"""Engine pods: valid, confined, pinned, and given the time that their size explains."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.configurations import configuration, replica

from controlplane.cluster import LEADER_WORKER_SETS, NETWORK_POLICIES, Object
from controlplane.crd.conditions import Reason
from controlplane.operator.manifests.nodes import leader_worker_set
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.settings import PodSettings
from controlplane.planner.refusal import Refused

DIGEST = "sha256:" + "0" * 64
SETTINGS = PodSettings(
    images={it: f"registry/{it}@{DIGEST}" for it in ("flash", "vllm", "sglang")},
    image_pull_secrets=("pull",),
    engine_token=True,
    leader_worker_sets=True,
)
SOURCES: dict[str, Object] = {
    "pvc": {"pvc": {"claim": "w", "path": "v4/flash"}},
    "pinned": {"pvc": {"claim": "w"}, "digest": DIGEST},
    "hub": {"hub": {"repo": "o/n", "revision": "abc", "secret": "hf"}, "digest": DIGEST},
    "s3": {"s3": {"url": "s3://b/p", "endpoint": "https://s3.local", "secret": "aws"}},
    "image": {"image": {"reference": f"registry/weights@{DIGEST}"}},
}
Valid = Callable[[Object], Object]


def only(pods: list[Object]) -> Object:
    (pod,) = pods
    return pod


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("engine", ["flash", "vllm", "sglang"])
def test_pods_are_valid_and_restricted(valid: Valid, engine: str, source: str) -> None:
    made = replica(engine={"name": engine}, weights=SOURCES[source])
    pod = valid(only(engine_pods(made, SETTINGS)))
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
    for volume in spec["volumes"]:  # the kinds that `restricted` admits
        assert {"emptyDir", "persistentVolumeClaim"} & volume.keys(), volume


def test_a_pod_is_the_replicas_by_name_label_and_owner() -> None:
    pod = only(engine_pods(replica(), SETTINGS))
    metadata = pod["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("acme", "chat-0-0")
    assert metadata["labels"]["flashplane.io/owner"] == "chat"
    assert metadata["labels"]["flashplane.io/replica"] == "chat-0"
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Replica", "11-22", True)


def test_a_pod_is_pinned_to_its_reservation_and_asks_for_all_its_gpus() -> None:
    pod = only(engine_pods(replica(nodes=("gpu-7",)), SETTINGS))
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (expression,) = term["matchExpressions"]
    assert expression == {"key": "kubernetes.io/hostname", "operator": "In", "values": ["gpu-7"]}
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "8"
    assert resources["requests"]["nvidia.com/gpu"] == "8"


def test_loading_has_the_time_its_bytes_explain_and_liveness_waits_for_it() -> None:
    slow = configuration(read_bytes_per_second=0.5e9)
    engine = only(engine_pods(replica(where=slow), SETTINGS))["spec"]["containers"][0]
    startup = engine["startupProbe"]
    allowed = startup["periodSeconds"] * startup["failureThreshold"]
    assert allowed >= 2 * 159.6e9 / 0.5e9
    assert "initialDelaySeconds" not in engine["livenessProbe"]
    assert engine["livenessProbe"]["httpGet"]["path"] == "/health"


def test_the_grace_is_longer_than_the_drain() -> None:
    made = replica(drainTimeoutSeconds=900)
    pod = only(engine_pods(made, SETTINGS))
    command = pod["spec"]["containers"][0]["command"]
    drain = int(command[command.index("--drain-seconds") + 1])
    assert drain == 900
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain


def test_weights_on_a_claim_are_mounted_read_only_and_fetched_by_nobody() -> None:
    spec = only(engine_pods(replica(weights=SOURCES["pvc"]), SETTINGS))["spec"]
    assert "initContainers" not in spec
    (volume,) = (it for it in spec["volumes"] if it["name"] == "weights")
    assert volume["persistentVolumeClaim"] == {"claimName": "w", "readOnly": True}
    engine = spec["containers"][0]
    assert engine["command"][2] == "/weights/v4/flash"
    assert {"name": "weights", "mountPath": "/weights", "readOnly": True} in engine["volumeMounts"]


def test_a_claim_with_a_digest_is_read_once_before_the_engine(tmp_path: Path) -> None:
    spec = only(engine_pods(replica(weights=SOURCES["pinned"]), SETTINGS))["spec"]
    (verify,) = spec["initContainers"]
    assert verify["volumeMounts"][0]["readOnly"] is True
    program = tmp_path / "flashplane-worker"
    program.write_text(f"#!/bin/sh\necho {DIGEST}\n")
    program.chmod(0o755)
    *script, folder, expected = verify["command"]
    assert (folder, expected) == ("/weights", DIGEST)
    script = [it.replace("$$", "$") for it in script]  # as Kubernetes does
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert subprocess.run([*script, folder, expected], env=path).returncode == 0
    other = subprocess.run([*script, folder, "sha256:1"], env=path, capture_output=True, text=True)
    assert other.returncode == 1
    assert "not sha256:1" in other.stderr


def test_fetched_weights_go_where_the_engine_reads_them() -> None:
    spec = only(engine_pods(replica(weights=SOURCES["hub"]), SETTINGS))["spec"]
    (fetch,) = spec["initContainers"]
    assert fetch["image"] == SETTINGS.images["flash"]
    assert fetch["command"][2] == spec["containers"][0]["command"][2] == "/weights/" + "0" * 32
    assert fetch["command"][3:] == ["--hub", "o/n", "--revision", "abc", "--digest", DIGEST]
    assert fetch["envFrom"] == [{"secretRef": {"name": "hf"}}]


def test_weights_of_different_sources_never_share_a_folder() -> None:
    def folder(revision: str) -> str:
        source = {"hub": {"repo": "o/n", "revision": revision}}
        return only(engine_pods(replica(weights=source), SETTINGS))["spec"]["containers"][0][
            "command"
        ][2]

    assert folder("a") == folder("a") != folder("b")


def test_only_pods_that_fetch_may_go_out_for_it() -> None:
    def labels(source: str) -> dict[str, str]:
        return only(engine_pods(replica(weights=SOURCES[source]), SETTINGS))["metadata"]["labels"]

    assert labels("s3")["flashplane.io/fetches-weights"] == "true"
    assert "flashplane.io/fetches-weights" not in labels("pvc") | labels("image")


def test_the_nodes_disk_is_used_where_the_namespace_allows_it() -> None:
    settings = PodSettings(cache_path="/var/cache/fp", cache_namespaces=frozenset({"release"}))

    def volume(namespace: str, **weights: object) -> Object:
        source = {"hub": {"repo": "o/n"}} | weights
        made = replica(namespace=namespace, weights=source)
        return next(
            it
            for it in only(engine_pods(made, settings))["spec"]["volumes"]
            if it["name"] == "weights"
        )

    assert volume("release")["hostPath"]["path"] == "/var/cache/fp"
    assert volume("acme")["emptyDir"] == {}
    assert volume("release", nodeCache=False)["emptyDir"] == {}


def test_weights_of_an_image_are_copied_from_where_the_mount_does_not_hide_them() -> None:
    spec = only(engine_pods(replica(weights=SOURCES["image"]), SETTINGS))["spec"]
    (copy,) = spec["initContainers"]
    assert copy["command"] == ["cp", "-rL", "/weights/.", "/flashplane-weights/"]
    assert [it["mountPath"] for it in copy["volumeMounts"]] == ["/flashplane-weights"]
    assert spec["containers"][0]["command"][2] == "/weights"


def test_the_engine_asks_for_the_token_in_the_namespaces_secret() -> None:
    def token(settings: PodSettings) -> list[Object]:
        environment = only(engine_pods(replica(), settings))["spec"]["containers"][0]["env"]
        return [it for it in environment if it["name"] == "FLASHPLANE_ENGINE_TOKEN"]

    reference = {"name": "flashplane-engine-token", "key": "token"}
    assert token(SETTINGS)[0]["valueFrom"] == {"secretKeyRef": reference}
    assert token(PodSettings()) == []


def test_isolation_chooses_the_runtime_and_tolerates_the_tenants_nodes() -> None:
    made = replica(isolation={"node": "dedicated", "runtimeClass": "kata"})
    spec = only(engine_pods(made, SETTINGS))["spec"]
    assert spec["runtimeClassName"] == "kata"
    tenant = {"key": "flashplane.io/tenant", "operator": "Equal", "value": "acme"}
    assert tenant in spec["tolerations"]


def test_a_deployments_own_image_is_used() -> None:
    made = replica(engine={"name": "vllm", "image": "mine@sha256:1"})
    assert only(engine_pods(made, SETTINGS))["spec"]["containers"][0]["image"] == "mine@sha256:1"


def test_an_engine_without_an_image_is_refused_and_the_fix_is_named() -> None:
    with pytest.raises(Refused, match="name one in engine") as caught:
        engine_pods(replica(engine={"name": "vllm"}), PodSettings())
    assert caught.value.reason is Reason.IMAGE_UNAVAILABLE


def test_what_cannot_run_is_refused_before_a_pod_is_made() -> None:
    with pytest.raises(Refused, match="does not divide"):
        engine_pods(replica(where=configuration(count=6)), SETTINGS)


TWO_NODES = configuration(count=16, nodes=2)


@pytest.mark.parametrize("parallelism", ["tensor", "expert"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_several_nodes_are_one_group_apart_from_each_other(
    valid: Valid, engine: str, parallelism: str
) -> None:
    where = configuration(count=8 if parallelism == "tensor" else 16, nodes=2)
    made = replica(
        where=where, engine={"name": engine, "parallelism": parallelism}, nodes=("a", "b")
    )
    (kind, body), (policy_kind, policy) = leader_worker_set(made, SETTINGS)
    assert (kind, policy_kind) == (LEADER_WORKER_SETS, NETWORK_POLICIES)
    valid(policy)
    group = body["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    for template in (group["leaderTemplate"], group["workerTemplate"]):
        valid({"apiVersion": "v1", "kind": "Pod", **template})
        gpus = template["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        assert int(gpus) == where.count // 2
        assert template["spec"]["affinity"]["podAntiAffinity"]
    leader, worker = (group[it]["spec"]["containers"][0] for it in TEMPLATES)
    assert "$(LWS_LEADER_ADDRESS)" in " ".join(leader["command"])
    assert "startupProbe" in leader
    assert "startupProbe" not in worker


TEMPLATES = ("leaderTemplate", "workerTemplate")


def test_without_the_kind_no_replica_spans_nodes() -> None:
    made = replica(where=TWO_NODES, engine={"name": "sglang", "parallelism": "expert"})
    with pytest.raises(Refused, match="install LeaderWorkerSet") as caught:
        leader_worker_set(made, PodSettings())
    assert caught.value.reason is Reason.IMPOSSIBLE_GEOMETRY


def test_a_replica_without_gpus_yet_has_its_pods_names_and_no_node() -> None:
    pod = only(engine_pods(replica(nodes=()), SETTINGS))
    assert pod["metadata"]["name"] == "chat-0-0"
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == []  # which an API server refuses


def test_a_vllm_worker_node_begins_at_its_own_first_rank() -> None:
    made = replica(
        where=TWO_NODES, engine={"name": "vllm", "parallelism": "expert"}, nodes=("a", "b")
    )
    (_, body), _ = leader_worker_set(made, SETTINGS)
    worker = body["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]
    assert worker["command"][:3] == [
        "sh",
        "-c",
        'exec "$@" --data-parallel-start-rank "$$((LWS_WORKER_INDEX * 8))"',
    ]
    assert worker["command"][-1] == "--headless"
