"""What a tenant's namespace holds."""

import copy
from collections.abc import Callable

from support.configurations import replica

from controlplane.cluster import (
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)
from controlplane.operator.manifests.pods import engine_pods
from controlplane.operator.manifests.settings import PodSettings
from controlplane.operator.manifests.tenant import TenantSettings, holds, tenant_objects

SETTINGS = TenantSettings(
    release_namespace="flashplane",
    weights_cidrs=("10.1.0.0/16",),
    ingress_namespace="ingress",
    engine_token="hunter2",
)
GPUS = {"nvidia.com/gpu": 16}


def objects(settings: TenantSettings = SETTINGS) -> list[tuple[Resource, Object]]:
    return tenant_objects("fp-acme", "acme", settings, gpus=GPUS)


def policies() -> dict[str, Object]:
    found = (body for kind, body in objects() if kind == NETWORK_POLICIES)
    return {it["metadata"]["name"]: it["spec"] for it in found}


def of(kind: Resource) -> Object:
    return next(body for found, body in objects() if found == kind)


def test_everything_is_valid_and_in_the_namespace(valid: Callable[[Object], Object]) -> None:
    first, *others = (valid(body) for _, body in objects())
    assert first["kind"] == "Namespace"
    assert all(it["metadata"]["namespace"] == "fp-acme" for it in others)


def test_the_namespace_is_its_tenants_and_restricted() -> None:
    labels = objects()[0][1]["metadata"]["labels"]
    assert labels["flashplane.io/tenant"] == "acme"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_nothing_goes_in_or_out_unless_another_policy_says_so() -> None:
    deny = policies()["default-deny"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def selects(policy: Object, labels: dict[str, str]) -> bool:
    return policy["podSelector"].get("matchLabels", {}).items() <= labels.items()


def test_an_engine_on_a_claim_is_reached_by_gateways_and_reaches_only_the_resolver() -> None:
    (pod,) = engine_pods(replica(), PodSettings())
    mine = [it for it in policies().values() if selects(it, pod["metadata"]["labels"])]
    (ingress,) = (rule for it in mine for rule in it.get("ingress", []))
    (source,) = ingress["from"]
    assert source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "flashplane"
    assert ingress["ports"] == [{"port": 8000, "protocol": "TCP"}]
    (egress,) = (rule for it in mine for rule in it.get("egress", []))
    assert {it["port"] for it in egress["ports"]} == {53}


def test_whoever_may_go_out_never_reaches_metadata_or_the_cluster() -> None:
    blocks = [
        target["ipBlock"]
        for policy in policies().values()
        for rule in policy.get("egress", [])
        for target in rule["to"]
        if "ipBlock" in target and target["ipBlock"]["cidr"] in ("0.0.0.0/0", "::/0")
    ]
    assert len(blocks) == 4
    for block in blocks:
        inside = {"169.254.0.0/16", "10.0.0.0/8"} if block["cidr"] == "0.0.0.0/0" else {"fc00::/7"}
        assert inside <= set(block["except"])


def test_a_name_server_on_each_node_can_be_asked() -> None:
    settings = TenantSettings("flashplane", resolver_cidrs=("169.254.20.10/32",))
    names = next(it for _, it in objects(settings) if it["metadata"]["name"] == "names")
    (rule,) = names["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
    assert {it["port"] for it in rule["ports"]} == {53}


def test_pods_that_fetch_reach_https_and_the_networks_named_for_weights() -> None:
    (https, own) = policies()["weights"]["egress"]
    assert https["ports"] == [{"port": 443, "protocol": "TCP"}]
    assert own == {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}


def test_gpus_are_bounded_and_no_door_can_be_opened() -> None:
    hard = of(RESOURCE_QUOTAS)["spec"]["hard"]
    assert hard["requests.nvidia.com/gpu"] == "16"
    assert hard["services.nodeports"] == hard["services.loadbalancers"] == "0"


def test_replicas_have_an_identity_without_a_token() -> None:
    (pod,) = engine_pods(replica(), PodSettings())
    account = of(SERVICE_ACCOUNTS)
    assert account["metadata"]["name"] == pod["spec"]["serviceAccountName"]
    assert account["automountServiceAccountToken"] is False


def test_the_operator_and_the_ssh_gateway_are_bound_to_one_role_each() -> None:
    bindings = [body for kind, body in objects() if kind == ROLE_BINDINGS]
    bound = {it["subjects"][0]["name"]: it["roleRef"]["name"] for it in bindings}
    assert bound == {
        "flashplane-operator": "flashplane-tenant",
        "flashplane-ssh-gateway": "flashplane-tenant-ssh",
    }
    assert {it["subjects"][0]["namespace"] for it in bindings} == {"flashplane"}


def test_the_engine_token_is_a_secret_only_where_there_is_one() -> None:
    assert of(SECRETS)["data"] == {"token": "aHVudGVyMg=="}
    without = objects(TenantSettings(release_namespace="flashplane"))
    assert SECRETS not in [kind for kind, _ in without]
    assert "hunter2" not in repr(SETTINGS)


def test_an_object_that_has_all_that_is_wanted_is_left_alone() -> None:
    for _, wanted in objects():
        assert not holds(None, wanted)
        live = copy.deepcopy(wanted)
        live["metadata"] |= {"uid": "1", "managedFields": []}
        live.setdefault("status", {})["phase"] = "Active"
        live.pop("spec", None) if live.get("spec") == {} else None
        assert holds(live, wanted)


def test_a_rule_taken_away_is_noticed() -> None:
    wanted = next(it for _, it in objects() if it["metadata"]["name"] == "gateways-to-engines")
    live = copy.deepcopy(wanted)
    live["spec"]["ingress"][0]["from"].append({"podSelector": {}})
    assert not holds(live, wanted)
    bare = copy.deepcopy(wanted)
    del bare["spec"]["policyTypes"]
    assert not holds(bare, wanted)
