"""The charts installed on a real API server, as whoever runs a cluster does. Used by tests/kube."""

import json
import subprocess
from pathlib import Path
from typing import Any

from support import helm
from support.kube_server import KubeServer

NAMESPACE = "flashplane"
NAME = "fp"


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
