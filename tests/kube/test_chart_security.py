"""Security of everything the chart runs, asserted on what it renders."""

from typing import Any

import pytest
import yaml
from support import helm
from support.helm import of_kind, pod_templates, render

Objects = list[dict[str, Any]]
Pods = dict[str, dict[str, Any]]

DIGEST = "sha256:" + "0" * 64
# Who speaks with the API server; nobody else gets a token.
SPEAKERS = {"operator", "jobs", "ssh-gateway", "orphans"}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


@pytest.fixture(scope="module")
def objects() -> Objects:
    return render(values={"image": {"digest": DIGEST}, "engineToken": {"existingSecret": "t"}})


@pytest.fixture(scope="module")
def pods(objects: Objects) -> Pods:
    """Every pod, that of the Job which is kept in a ConfigMap included."""
    kept = [
        it["data"]["job.yaml"] for it in of_kind(objects, "ConfigMap") if "job.yaml" in it["data"]
    ]
    return {**pod_templates(objects), "Job/replay": yaml.safe_load(kept[0])["spec"]["template"]}


def component(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def rules(objects: Objects) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (role["kind"], role["metadata"]["name"], rule)
        for kind in ("Role", "ClusterRole")
        for role in of_kind(objects, kind)
        for rule in role["rules"]
    ]


def test_all_components_are_looked_at(pods: Pods) -> None:
    assert {component(pod) for pod in pods.values()} == {
        *("gateway", "api", "jobs", "beat", "operator", "ssh-gateway"),
        *("migrate", "orphans", "replay", "test"),
    }


def test_pods_meet_the_restricted_standard(pods: Pods) -> None:
    for name, pod in pods.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 10000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        assert not any("hostPath" in volume for volume in spec["volumes"]), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not any("hostPort" in port for port in container.get("ports", ())), name


def test_containers_cannot_write_to_their_image(pods: Pods) -> None:
    for name, pod in pods.items():
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert "/tmp" in {it["mountPath"] for it in container["volumeMounts"]}, name


def test_containers_have_requests_and_a_limit_of_memory(pods: Pods) -> None:
    for name, pod in pods.items():
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert "memory" in resources["limits"], name


def test_a_digest_wins_over_the_tag_everywhere(pods: Pods) -> None:
    for pod in pods.values():
        for container in pod["spec"]["containers"]:
            assert container["image"] == f"flashplane-controlplane@{DIGEST}"


def test_only_who_speaks_with_the_api_server_has_a_token(pods: Pods) -> None:
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is (component(pod) in SPEAKERS)


def test_long_running_pods_have_accounts_of_their_own(objects: Objects) -> None:
    accounts = {it["metadata"]["name"] for it in of_kind(objects, "ServiceAccount")}
    for kind in ("Deployment", "StatefulSet", "CronJob"):
        for name, pod in pod_templates(of_kind(objects, kind)).items():
            account = pod["spec"]["serviceAccountName"]
            assert account in accounts, name
            assert account.endswith(f"-{component(pod)}"), name


def test_secrets_are_named_and_never_made(objects: Objects) -> None:
    assert of_kind(objects, "Secret") == []


def test_every_process_is_given_the_secrets_it_uses_and_no_other(pods: Pods) -> None:
    given = {
        component(pod): {
            env["name"]
            for container in pod["spec"]["containers"]
            for env in container.get("env", ())
            if "secretKeyRef" in env.get("valueFrom", {})
        }
        for pod in pods.values()
    }
    books = {"DATABASE_URL", "REDIS_URL", "FLASHPLANE_KEY_PEPPER"}
    assert given == {
        "gateway": books | {"FLASHPLANE_ENGINE_TOKEN"},
        "api": books,
        "jobs": books,
        "beat": books,
        "replay": {"DATABASE_URL"},
        "migrate": {"DATABASE_URL"},
        "operator": {"REDIS_URL", "FLASHPLANE_ENGINE_TOKEN"},
        "ssh-gateway": set(),
        "orphans": set(),
        "test": set(),
    }


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
