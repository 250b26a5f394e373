"""NetworkPolicies: denied first, then what is needed."""

from typing import Any

import pytest
import yaml
from support.helm import of_kind, pod_templates, render

from controlplane.cluster import NETWORK_POLICIES
from controlplane.operator.manifests.tenant import TenantSettings, tenant_objects

Objects = list[dict[str, Any]]
Pods = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def objects() -> Objects:
    return render(values={"engineToken": {"existingSecret": "t"}})


@pytest.fixture(scope="module")
def pods(objects: Objects) -> Pods:
    """Every pod, that of the Job which is kept in a ConfigMap included."""
    kept = [
        it["data"]["job.yaml"] for it in of_kind(objects, "ConfigMap") if "job.yaml" in it["data"]
    ]
    return {**pod_templates(objects), "Job/replay": yaml.safe_load(kept[0])["spec"]["template"]}


def test_the_operator_has_no_way_to_the_database(objects: Objects) -> None:
    (policy,) = [
        it
        for it in of_kind(objects, "NetworkPolicy")
        if it["metadata"]["name"].endswith("-operator")
    ]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert 5432 not in ports


def test_traffic_is_denied_before_anything_is_allowed(objects: Objects, pods: Pods) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    (deny,) = [it for it in policies if it["metadata"]["name"].endswith("default-deny")]
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not deny["spec"].keys() & {"ingress", "egress"}
    for name, pod in pods.items():
        labels = pod["metadata"]["labels"].items()
        assert deny["spec"]["podSelector"]["matchLabels"].items() <= labels, name
        allowing = [
            it
            for it in policies
            if it is not deny
            and it["spec"]["podSelector"].get("matchLabels", {"none": ""}).items() <= labels
        ]
        assert len(allowing) == 1, name


def test_the_admin_api_answers_this_release_alone(objects: Objects) -> None:
    (policy,) = [
        it for it in of_kind(objects, "NetworkPolicy") if it["metadata"]["name"].endswith("-api")
    ]
    (rule,) = policy["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "fp"
    assert "namespaceSelector" not in peer


def test_the_releases_own_test_asks_though_metrics_are_narrowed() -> None:
    narrow = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
    policies = of_kind(render(values={"networkPolicy": {"metricsFrom": narrow}}), "NetworkPolicy")
    for component in ("gateway", "operator"):
        (policy,) = [
            it for it in policies if it["metadata"]["name"] == f"fp-flashplane-{component}"
        ]
        (rule,) = [it for it in policy["spec"]["ingress"] if it["ports"][0]["port"] == 9090]
        chosen = [it.get("podSelector", {}).get("matchLabels", {}) for it in rule["from"]]
        assert "test" in [it.get("app.kubernetes.io/component") for it in chosen]
        assert narrow[0] in rule["from"]


def test_engines_fetch_weights_from_nowhere_inside_but_what_is_named() -> None:
    """Tenants' engines may go to the same places, so what one fetches the other does too."""
    mine = render(values={"engines": {"weightsCidrs": ["10.9.0.0/24"]}})
    (policy,) = [
        it for it in of_kind(mine, "NetworkPolicy") if it["metadata"]["name"].endswith("-engines")
    ]
    settings = TenantSettings("flashplane", weights_cidrs=("10.9.0.0/24",))
    theirs = {
        body["metadata"]["name"]: body
        for resource, body in tenant_objects("fp-a", "a", settings, gpus={})
        if resource == NETWORK_POLICIES
    }
    for rule in theirs["weights"]["spec"]["egress"]:
        assert rule in policy["spec"]["egress"]


def egress(component: str, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Where a component may connect to."""
    (policy,) = [
        it
        for it in of_kind(render(values=values), "NetworkPolicy")
        if it["metadata"]["name"] == f"fp-flashplane-{component}"
    ]
    return list(policy["spec"]["egress"])


def peers_by_port(rules: list[dict[str, Any]], port: int) -> list[dict[str, Any]]:
    return [
        peer
        for rule in rules
        for peer in rule.get("to", ())
        if port in {it["port"] for it in rule.get("ports", ())}
    ]


def test_webhooks_leave_for_the_internet_and_nothing_inside() -> None:
    receivers = peers_by_port([it for it in egress("jobs") if "to" in it], 443)
    kept_out = {it["ipBlock"]["cidr"]: set(it["ipBlock"]["except"]) for it in receivers}
    assert kept_out.keys() == {"0.0.0.0/0", "::/0"}
    assert {"10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16"} <= kept_out["0.0.0.0/0"]
    assert "fc00::/7" in kept_out["::/0"]


@pytest.mark.parametrize("component", ["gateway", "api"])
def test_people_are_let_in_only_where_there_is_an_identity_provider(component: str) -> None:
    assert peers_by_port(egress(component), 443) == []
    settings = {"oidc_issuer": "https://id.example.com"}
    assert peers_by_port(egress(component, {"settings": settings}), 443)
    inside = {"namespaceSelector": {"matchLabels": {"name": "identity"}}}
    narrowed = {"oidcTo": [inside], "oidcPorts": [8443]}
    rules = egress(component, {"settings": settings, "networkPolicy": narrowed})
    assert peers_by_port(rules, 8443) == [inside]
    assert peers_by_port(rules, 443) == []


def test_jobs_read_engines_journals_here_and_in_tenants_namespaces() -> None:
    """Without them no bill would ever be held against what engines wrote down."""
    assert peers_by_port(egress("jobs"), 8000)
    (here,) = [
        it
        for it in of_kind(render(), "NetworkPolicy")
        if it["metadata"]["name"] == "fp-flashplane-engines"
    ]
    callers = here["spec"]["ingress"][0]["from"]
    assert "jobs" in [
        it["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component")
        for it in callers
    ]
    (theirs,) = [
        body
        for _, body in tenant_objects("fp-a", "a", TenantSettings("flashplane"), gpus={})
        if body["metadata"]["name"] == "gateways-to-engines"
    ]
    (peer,) = theirs["spec"]["ingress"][0]["from"]
    assert "jobs" in peer["podSelector"]["matchExpressions"][0]["values"]
