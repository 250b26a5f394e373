"""`flashplane doctor --cluster` against a real API server, before and after the chart."""

import json
from typing import Any

from support import release
from support.kube_server import KubeServer
from support.release import NAMESPACE
from typer.testing import CliRunner

from controlplane.cli.main import app


def examined(server: KubeServer) -> dict[str, Any]:
    environment = {"KUBECONFIG": str(server.kubeconfig), "DATABASE_URL": "", "REDIS_URL": ""}
    words = ["doctor", "--cluster", "--namespace", NAMESPACE, "--json"]
    result = CliRunner().invoke(app, words, env=environment)
    return {it["check"]: it for it in json.loads(result.output)}


def test_a_cluster_is_judged_before_and_after_an_install(kube_server: KubeServer) -> None:
    before = examined(kube_server)
    assert before["API server"]["ok"]
    assert before["Permissions"]["ok"]
    assert before["Definitions"]["ok"]
    assert not before["GPUs"]["ok"]  # no node at all
    assert before["Release"]["detail"] == f"not installed in {NAMESPACE}"
    release.install(kube_server)
    try:
        after = examined(kube_server)
        assert "fp-flashplane-operator 0/2" in after["Processes"]["detail"]
        assert not after["Operator"]["ok"]
        assert "Replicas" in after  # judged; earlier tests may have left some here
    finally:
        release.uninstall(kube_server)
