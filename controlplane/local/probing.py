"""Probes of containers: asking, and what the answers amount to. Called by `container`."""

import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from controlplane.cluster import Object

# Models load within seconds here: what does not answer yet is asked again sooner than in a cluster,
# where a period is many seconds. How long it may go on failing stays what the manifest says.
IMPATIENT_SECONDS = 0.25


@dataclass
class Probe:
    """One probe of one run of a container.

    Attributes:
        passes: what it amounts to; None until it is known.
    """

    spec: Object
    due_at: float
    passes: bool | None = None
    _failing_since: float | None = None
    _successes: int = 0

    def tell(self, answer: bool, now: float) -> None:
        """Take an answer into account."""
        period_seconds = float(self.spec.get("periodSeconds", 10))
        if answer:
            self._failing_since = None
            self._successes += 1
            if self._successes >= self.spec.get("successThreshold", 1):
                self.passes = True
        else:
            self._successes = 0
            if self._failing_since is None:
                self._failing_since = now
            patience_seconds = period_seconds * (self.spec.get("failureThreshold", 3) - 1)
            if now - self._failing_since >= patience_seconds:
                self.passes = False
        settled = self.passes is not None and self.passes == answer
        self.due_at = now + (period_seconds if settled else min(period_seconds, IMPATIENT_SECONDS))


def answer(spec: Object, container: Object, address: str, run: Callable[[list[str]], bool]) -> bool:
    """Ask once.

    Args:
        run: runs a command as the container would and returns whether it ended with 0.
    """
    timeout_seconds = float(spec.get("timeoutSeconds", 1))
    if "httpGet" in spec:
        return _http(spec["httpGet"], container, address, timeout_seconds)
    if "tcpSocket" in spec:
        asked = spec["tcpSocket"]
        where = (asked.get("host") or address, _port(asked["port"], container))
        try:
            socket.create_connection(where, timeout_seconds).close()
        except OSError:
            return False
        return True
    try:
        return run(spec["exec"]["command"])
    except subprocess.TimeoutExpired:
        return False


def _http(asked: Object, container: Object, address: str, timeout_seconds: float) -> bool:
    scheme = asked.get("scheme", "HTTP").lower()
    host = asked.get("host") or address
    url = f"{scheme}://{host}:{_port(asked['port'], container)}{asked.get('path', '/')}"
    headers = {it["name"]: it["value"] for it in asked.get("httpHeaders", ())}
    try:
        found = httpx.get(
            url, headers=headers, timeout=timeout_seconds, trust_env=False, verify=False
        )
    except httpx.HTTPError:
        return False
    return 200 <= found.status_code < 400


def _port(port: int | str, container: Object) -> int:
    if isinstance(port, int):
        return port
    named = (it["containerPort"] for it in container.get("ports", ()) if it.get("name") == port)
    return int(next(named, port))
