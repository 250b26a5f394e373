"""Security of every pod that the chart runs, asserted on what it renders."""

from typing import Any

import pytest
import yaml
from support.chart_values import MATRIX
from support.helm import of_kind, pod_templates, render

Objects = list[dict[str, Any]]
Pods = dict[str, dict[str, Any]]

DIGEST = "sha256:" + "0" * 64
# Who speaks with the API server; nobody else gets a token.
SPEAKERS = {"operator", "jobs", "ssh-gateway", "orphans"}


@pytest.fixture(scope="module")
def objects() -> Objects:
    return render(values={"image": {"digest": DIGEST}, **MATRIX["of money"]})


@pytest.fixture(scope="module")
def pods(objects: Objects) -> Pods:
    """Every pod, that of the Job which is kept in a ConfigMap included."""
    kept = [
        it["data"]["job.yaml"] for it in of_kind(objects, "ConfigMap") if "job.yaml" in it["data"]
    ]
    return {**pod_templates(objects), "Job/replay": yaml.safe_load(kept[0])["spec"]["template"]}


def component(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


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
    books = {
        *("DATABASE_URL", "REDIS_URL"),
        *("FLASHPLANE_KEY_PEPPER", "FLASHPLANE_KEY_PEPPER_PREVIOUS"),
    }
    assert given == {
        "gateway": books | {"FLASHPLANE_ENGINE_TOKEN", "FLASHPLANE_PAYMENT_WEBHOOK_SECRETS"},
        "api": books,
        "jobs": books | {"FLASHPLANE_ENGINE_TOKEN"},
        "beat": books,
        "replay": {"DATABASE_URL"},
        "migrate": {"DATABASE_URL"},
        "operator": {"REDIS_URL", "FLASHPLANE_ENGINE_TOKEN"},
        "ssh-gateway": set(),
        "orphans": set(),
        "test": set(),
    }
