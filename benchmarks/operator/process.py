"""The operator as a process of its own: started, watched from outside, ended."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from controlplane.settings import child_environment

REST_SECONDS = 3.0


class OperatorProcess:
    """`flashplane operator`, with what its metrics and the kernel tell of it."""

    def __init__(self, kubeconfig: Path, namespace: str, redis_url: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/metrics"
        environment = child_environment(
            {
                "KUBECONFIG": str(kubeconfig),
                "REDIS_URL": redis_url,
                "FLASHPLANE_TOOLS_IMAGE": "tools",
                "FLASHPLANE_OPERATOR_NAMESPACE": namespace,
                "FLASHPLANE_OPERATOR_PORT": str(port),
                "FLASHPLANE_LOG_LEVEL": "WARNING",
            }
        )
        self.started_at = time.monotonic()
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "controlplane.cli", "operator"],
                env=environment,
                stdout=file,
                stderr=file,
            )
        self._told = psutil.Process(self._process.pid)

    def stop(self) -> None:
        """End it as Kubernetes does."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0 while it is silent."""
        assert self._process.poll() is None, "the operator has ended: see its log"
        try:
            with urllib.request.urlopen(self._url, timeout=10) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def writes(self) -> float:
        """Return how many writes it has tried."""
        return self.metric("flashplane_operator_writes_total")

    def cpu_seconds(self) -> float:
        """Return the processor time it has used."""
        times = self._told.cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """Return what it occupies."""
        return int(self._told.memory_info().rss)

    def rest(self, seconds: float) -> float:
        """Wait until it leads, works on nothing and writes nothing; return the moment when it had
        come to rest, on the monotonic clock."""
        deadline = time.monotonic() + seconds
        before, since = -1.0, time.monotonic()
        while time.monotonic() < deadline:
            rounds = self.metric("flashplane_operator_rounds_total")
            busy = self.metric("flashplane_operator_queued_keys") or not rounds
            if busy or self.writes() != before:
                before, since = self.writes(), time.monotonic()
            elif time.monotonic() - since > REST_SECONDS:
                return since
            time.sleep(0.25)
        raise AssertionError(f"the operator did not come to rest within {seconds:.0f} s")
