"""Roles as rendered: nobody reads Secrets, few write in the whole cluster."""

from typing import Any

import pytest
from support import helm
from support.helm import of_kind, render

Objects = list[dict[str, Any]]
Pods = dict[str, dict[str, Any]]

WRITES = {"create", "update", "patch", "delete", "deletecollection"}


@pytest.fixture(scope="module")
def objects() -> Objects:
    return render(values={"engineToken": {"existingSecret": "t"}})


def rules(objects: Objects) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (role["kind"], role["metadata"]["name"], rule)
        for kind in ("Role", "ClusterRole")
        for role in of_kind(objects, kind)
        for rule in role["rules"]
    ]


def test_no_role_reads_secrets_but_the_engine_tokens_copy(objects: Objects) -> None:
    touching = [(name, rule) for _, name, rule in rules(objects) if "secrets" in rule["resources"]]
    assert {name for name, _ in touching} == {"fp-flashplane-tenant"}
    for _, rule in touching:
        if rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == ["flashplane-engine-token"]
            assert set(rule["verbs"]) == {"get", "patch"}


def test_without_an_engine_token_no_role_touches_secrets() -> None:
    for _, name, rule in rules(render()):
        assert "secrets" not in rule["resources"], name


def test_no_role_has_wildcards(objects: Objects) -> None:
    for _, name, rule in rules(objects):
        for words in rule.values():
            assert not any("*" in word for word in words), name


def test_what_is_written_in_the_whole_cluster_is_this_and_no_more(objects: Objects) -> None:
    bound = {it["roleRef"]["name"] for it in of_kind(objects, "ClusterRoleBinding")}
    written = {
        (name.removeprefix("fp-flashplane-"), resource, verb)
        for kind, name, rule in rules(objects)
        if kind == "ClusterRole" and name in bound
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in WRITES and "flashplane.io" not in rule["apiGroups"]
    }
    assert written == {
        ("operator", "nodes", "patch"),
        ("operator", "namespaces", "create"),
        ("operator", "namespaces", "patch"),
        ("operator", "rolebindings", "create"),
        ("operator", "rolebindings", "patch"),
        ("jobs", "namespaces", "create"),
        ("jobs", "namespaces", "patch"),
    }


def test_only_named_roles_can_be_bound(objects: Objects) -> None:
    found = [rule for _, _, rule in rules(objects) if "bind" in rule["verbs"]]
    (binding,) = found
    names = {it["metadata"]["name"] for it in of_kind(objects, "ClusterRole")}
    assert set(binding["resourceNames"]) == {"fp-flashplane-tenant", "fp-flashplane-tenant-ssh"}
    assert set(binding["resourceNames"]) <= names
    assert not any("escalate" in rule["verbs"] for _, _, rule in rules(objects))


def test_roles_into_tenants_are_bound_in_no_namespace_but_this(objects: Objects) -> None:
    tenants = [
        it
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for it in of_kind(objects, kind)
        if "tenant" in it["roleRef"]["name"]
    ]
    (binding,) = tenants
    assert (binding["kind"], binding["metadata"]["namespace"]) == ("RoleBinding", "flashplane")


def test_newer_servers_keep_the_operator_in_tenants_namespaces(objects: Objects) -> None:
    policies = of_kind(objects, "ValidatingAdmissionPolicy")
    bound = {
        it["spec"]["policyName"] for it in of_kind(objects, "ValidatingAdmissionPolicyBinding")
    }
    assert {it["metadata"]["name"] for it in policies} == bound
    assert len(bound) == 2
    assert all(it["spec"]["failurePolicy"] == "Fail" for it in policies)


def test_older_servers_go_without_and_are_told() -> None:
    old = render(version="1.29")
    assert of_kind(old, "ValidatingAdmissionPolicy") == []
    assert "ValidatingAdmissionPolicy" in (helm.CHART / "templates/NOTES.txt").read_text()
