"""A real Kubernetes API server on loopback, with etcd and the controller manager.

Data is thrown away and nothing is written to disk for good, so it starts in seconds. The API server
alone can be killed and started again on its port, which is what clients must survive.
"""

import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from support.polling import until
from support.ports import free_port

from controlplane.cluster import CRDS, ClusterError
from controlplane.crd import schema
from controlplane.crd.base import DEPLOYMENTS, ENDPOINTS, REPLICAS
from controlplane.kube import Kube

REPOSITORY = Path(__file__).parents[2]
BUILD_COMMAND = "deploy/kube-assets"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm")
UNWANTED_CONTROLLERS = (  # they speak with a cloud, or with nodes, of which there are none
    "-nodeipam,-nodelifecycle,-route,-service,-cloud-node-lifecycle,-attachdetach,"
    "-persistentvolume-binder,-persistentvolume-expander,-ttl,-csrsigning,-csrapproving,-csrcleaner"
)
MAKE_KEY = ("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "sa.key")
MAKE_CERTIFICATE = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
    *("-days", "30", "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=127.0.0.1"),
    *("-addext", "basicConstraints=CA:TRUE"),
    *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"),
)


class AssetsMissing(Exception):
    """The programs are not here; the message says how to get them."""


def assets() -> Path:
    """Return the folder of the programs, built at their first use.

    Raises:
        AssetsMissing: they are not there and cannot be made.
    """
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        return _complete(Path(given), PROGRAMS[:3])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flashplane/kube"
    try:
        return _complete(cache, PROGRAMS)
    except AssetsMissing:
        built = subprocess.run(
            [REPOSITORY / BUILD_COMMAND, cache], capture_output=True, text=True, check=False
        )
        if built.returncode:
            last = (built.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AssetsMissing(f"`{BUILD_COMMAND}` failed: {last}") from None
        return _complete(cache, PROGRAMS)


def _complete(folder: Path, programs: tuple[str, ...]) -> Path:
    missing = [name for name in programs if not os.access(folder / name, os.X_OK)]
    if missing:
        raise AssetsMissing(f"{folder} has no {', '.join(missing)}: run `{BUILD_COMMAND}`")
    return folder


class KubeServer:
    """One cluster without nodes. `kubeconfig` is its admin's."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.port, self._etcd_port, self._peer_port = (free_port() for _ in range(3))
        self._programs = programs
        self._token = secrets.token_hex(16)
        self._manager_token = secrets.token_hex(16)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://127.0.0.1:{self.port}"

    def start(self, *, manager: bool = True) -> None:
        """Start everything and wait until namespaces get their ServiceAccount.

        Args:
            manager: with the controller manager, without which nothing is collected and whoever
                wants pods makes their ServiceAccounts.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_credentials()
        self._start_etcd()
        self.start_api()
        if not manager:
            return
        self._start_manager()
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until(lambda: self._answers(account), seconds=60, what="the default ServiceAccount")

    def stop(self) -> None:
        """End everything at once; there is nothing to keep."""
        for name in reversed(list(self._running)):
            self._end(name)

    def start_api(self) -> None:
        """Start the API server, where it was before, and wait until it is ready."""
        at = self.folder
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--allow-privileged",
            f"--token-auth-file={at / 'tokens.csv'}",
            f"--tls-cert-file={at / 'tls.crt'}",
            f"--tls-private-key-file={at / 'tls.key'}",
            "--service-account-issuer=https://127.0.0.1",
            f"--service-account-signing-key-file={at / 'sa.key'}",
            f"--service-account-key-file={at / 'sa.key'}",
            f"--cert-dir={at}",
        )
        until(lambda: self._answers("/readyz"), seconds=60, what="the API server to be ready")

    def kill_api(self) -> None:
        """Kill the API server; connections break without a word."""
        self._end("kube-apiserver")

    def compact(self) -> None:
        """Make etcd forget old versions, so that watches from there answer 410."""
        status = self._etcd("/v3/maintenance/status", {})
        self._etcd("/v3/kv/compaction", {"revision": status["header"]["revision"]})

    def kubeconfig_of(self, token: str, name: str) -> Path:
        """Write and return a kubeconfig of somebody else, such as a ServiceAccount."""
        file = self.folder / f"{name}.kubeconfig"
        self._write_kubeconfig(file, token)
        return file

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--logger=zap",
            "--log-level=warn",
        )

    def _start_manager(self) -> None:
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig_of(self._manager_token, 'manager')}",
            "--leader-elect=false",
            "--port=0",
            "--secure-port=0",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            f"--root-ca-file={self.folder / 'tls.crt'}",
            f"--controllers=*,{UNWANTED_CONTROLLERS}",
        )

    def _spawn(self, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.log", "ab") as log:
            command = [self._programs / program, *arguments]
            if guard := shutil.which("setpriv"):  # they end with the tests, however these end
                command = [guard, "--pdeathsig", "KILL", *command]
            self._running[program] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _end(self, program: str) -> None:
        process = self._running.pop(program)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _answers(self, path: str) -> bool:
        for name, process in self._running.items():
            log = self.folder / f"{name}.log"
            assert process.poll() is None, f"{name} died: {log.read_text()[-2000:]}"
        authority = ssl.create_default_context(cafile=str(self.folder / "tls.crt"))
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            request = urllib.request.Request(f"{self.url}{path}", headers=headers)
            with urllib.request.urlopen(request, timeout=2, context=authority) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            return False

    def _etcd(self, path: str, body: dict[str, object]) -> dict[str, dict[str, object]]:
        url = f"http://127.0.0.1:{self._etcd_port}{path}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=10) as answer:
            found: dict[str, dict[str, object]] = json.load(answer)
            return found

    def _write_credentials(self) -> None:
        at = self.folder
        rows = ((self._token, "admin"), (self._manager_token, "system:kube-controller-manager"))
        (at / "tokens.csv").write_text(
            "".join(f'{token},{name},{name},"system:masters"\n' for token, name in rows)
        )
        for arguments in (MAKE_KEY, MAKE_CERTIFICATE):
            subprocess.run(["openssl", *arguments], cwd=at, check=True, capture_output=True)
        self._write_kubeconfig(self.kubeconfig, self._token)

    def _write_kubeconfig(self, file: Path, token: str) -> None:
        authority = str(self.folder / "tls.crt")
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.url, "certificate-authority": authority}}
            ],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file.write_text(json.dumps(content))  # JSON is YAML


def install_kinds(server: KubeServer) -> None:
    """Apply our CRDs and wait until all are served."""
    client = Kube(server.kubeconfig)
    try:
        for definition in schema.definitions(rules=False):
            client.apply(CRDS, definition)
        for resource in (DEPLOYMENTS, ENDPOINTS, REPLICAS):

            def served(resource=resource) -> bool:
                try:
                    return bool(client.list(resource).resource_version)
                except ClusterError:
                    return False

            until(served, seconds=20, what=f"{resource.plural} to be served")
    finally:
        client.close()
