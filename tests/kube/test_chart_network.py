"""NetworkPolicies: denied first, then what is needed."""

from typing import Any

import pytest
import yaml
from support.helm import of_kind, pod_templates, render

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
