"""The database is migrated before anything else of a release exists."""

from concurrent.futures import ThreadPoolExecutor

from support import helm
from support.kube_server import KubeServer
from support.polling import until
from support.release import kubectl

NAMESPACE = "hooked"
COMPLETE = '{"status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}}'


def test_processes_start_only_after_the_migration(kube_server: KubeServer) -> None:
    base = ("--namespace", NAMESPACE)
    job = ("job", "fp-flashplane-migrate", *base)

    def migrating() -> bool:
        return kubectl(kube_server, "get", *job, check=False).returncode == 0

    with ThreadPoolExecutor(1) as pool:
        installing = pool.submit(
            helm.run,
            *("install", "fp", str(helm.CHART), *base, "--create-namespace", "--timeout", "60s"),
            values=helm.GIVEN,
            kubeconfig=kube_server.kubeconfig,
        )
        until(migrating, seconds=30, what="the migration")
        started = kubectl(kube_server, "get", "deployments,statefulsets", *base).stdout
        words = ("patch", *job, "--subresource=status", "--type=merge", "--patch", COMPLETE)
        kubectl(kube_server, *words)
        result = installing.result()
    try:
        assert started == ""
        assert result.returncode == 0, result.stderr
        assert "flashplane doctor --cluster" in result.stdout
        after = kubectl(kube_server, "get", "deployments", *base, "--output", "name").stdout
        assert "deployment.apps/fp-flashplane-operator" in after
    finally:
        helm.run("uninstall", "fp", *base, "--no-hooks", kubeconfig=kube_server.kubeconfig)
        kubectl(kube_server, "delete", "namespace", NAMESPACE, "--wait=false")
