"""The charts installed on a real API server, as whoever runs a cluster does. Used by tests/kube."""

import json
import subprocess
from pathlib import Path
from typing import Any

from support import helm
from support.kube_server import KubeServer

NAMESPACE = "flashplane"
NAME = "fp"
RIGHTS = (
    *("ServiceAccount", "ConfigMap"),
    *("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
)


def installed(server: KubeServer, *words: str, values: dict[str, Any] | None = None) -> str:
    """Run helm against the server and return what it printed; hooks are left out: no pod runs."""
    given = helm.merged(helm.GIVEN, values or {}) if str(helm.CHART) in words else values
    result = helm.run(*words, values=given, kubeconfig=server.kubeconfig)
    assert result.returncode == 0, result.stderr
    return result.stdout


def install(server: KubeServer) -> None:
    """Install both charts, the definitions over those that are there already."""
    installed(
        server,
        *("upgrade", "--install", "crds", str(helm.CRDS_CHART), "--namespace", NAMESPACE),
        *("--create-namespace", "--take-ownership", "--force-conflicts"),
    )
    installed(
        server,
        *("upgrade", "--install", NAME, str(helm.CHART), "--namespace", NAMESPACE, "--no-hooks"),
    )


def uninstall(server: KubeServer) -> None:
    """Take the release away; the definitions stay."""
    installed(server, "uninstall", NAME, "--namespace", NAMESPACE, "--no-hooks")


def kubectl(
    server: KubeServer, *words: str, given: Any = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run kubectl; `given`, one object or several, goes in on its standard input."""
    documents = given if isinstance(given, list) else [given]
    result = subprocess.run(
        [helm.program("kubectl"), "--kubeconfig", str(server.kubeconfig), *words],
        input=None if given is None else "\n---\n".join(json.dumps(it) for it in documents),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path("/"),
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def account(component: str, namespace: str = NAMESPACE) -> str:
    """Return a component's name as the API server knows it."""
    return f"system:serviceaccount:{namespace}:{NAME}-flashplane-{component}"


def kubeconfig(server: KubeServer, component: str) -> Path:
    """Return a kubeconfig with the token of a component's own ServiceAccount."""
    name = f"{NAME}-flashplane-{component}"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token"
    answer = kubectl(server, "create", "--raw", path, "-f", "-", given=request)
    return server.kubeconfig_of(json.loads(answer.stdout)["status"]["token"], component)


def rights(server: KubeServer, **values: Any) -> dict[str, str]:
    """Install accounts, roles and tables of the chart, no pods; return the operator's environment.

    What of it comes from Secrets or from the pod is left out.
    """
    objects = helm.render(values=values, version=helm.OLDEST)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    wanted = [it for it in objects if it["kind"] in RIGHTS]
    kubectl(server, "apply", "-f", "-", given=[namespace, *wanted])
    template = helm.pod_templates(objects)[f"Deployment/{NAME}-flashplane-operator"]
    (container,) = template["spec"]["containers"]
    return {it["name"]: it["value"] for it in container["env"] if "value" in it}
