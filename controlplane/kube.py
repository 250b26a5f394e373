"""The real API server: `Kube` is a `cluster.Cluster`. The only importer of Kubernetes' client.

The client library gives credentials, TLS and connections; bodies stay the dicts they are on the
wire, because its typed models cost ten times the processor and know nothing of our kinds. Every
request ends by itself: connecting, reading and the silence of a watch have limits.
Called by entry points: the operator, jobs, `flashplane doctor`, the SSH gateway.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec
import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from controlplane.cluster import (
    FIELD_MANAGER,
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Listing,
    NamespaceTerminating,
    NotFound,
    Object,
    Resource,
    Unreachable,
    WatchEvent,
)
from controlplane.errors import StartupError

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
# Servers send a bookmark about once a minute; a watch silent for longer has lost its server.
WATCH_SILENCE_SECONDS = 100.0
CONNECTIONS = 32
_READ_BYTES = 1 << 16
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Kube:
    """A Kubernetes API server; safe for use by many threads."""

    def __init__(self, kubeconfig: str | Path = "") -> None:
        """Read credentials; connects with the first request.

        Args:
            kubeconfig: a file, several joined by colons, or empty: this pod's ServiceAccount.

        Raises:
            StartupError: there are no usable credentials.
        """
        configuration = Configuration()
        try:
            if kubeconfig:
                load_kube_config(
                    str(kubeconfig), client_configuration=configuration, persist_config=False
                )
            else:
                load_incluster_config(client_configuration=configuration)
        except (ConfigException, OSError) as error:
            raise StartupError(
                f"No credentials for a Kubernetes cluster ({error}): set KUBECONFIG, or run this "
                "in a pod with a ServiceAccount."
            ) from None
        configuration.connection_pool_maxsize = CONNECTIONS
        configuration.socket_options = _KEEP_ALIVE
        configuration.retries = False
        self._host = str(configuration.host)
        self._client = ApiClient(configuration)
        self._client.user_agent = "flashplane"
        self._watches: set[urllib3.BaseHTTPResponse] = set()
        self._closed = False

    def close(self) -> None:
        """End the watches that run, from any thread, and let none begin."""
        self._closed = True
        for response in list(self._watches):
            with suppress(ValueError, RuntimeError, OSError):  # it has ended meanwhile
                response.shutdown()
        self._client.rest_client.pool_manager.clear()

    @property
    def url(self) -> str:
        """The server's URL, for clients of protocols that are not spoken here."""
        return self._host

    def headers(self) -> dict[str, str]:
        """Return the headers that authenticate a request made now."""
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        return headers

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is trusted, and this client's certificate; None: no TLS."""
        configuration = self._client.configuration
        if not self._host.startswith("https:"):
            return None
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context

    def server_version(self) -> str:
        """Return the server's version, such as `v1.34.2`."""
        return str(self._call("GET", "/version")["gitVersion"])

    def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        limit: int = 500,
        continuation: str = "",
    ) -> Listing:
        """See `Cluster.list`."""
        query = _given(labelSelector=labels, limit=limit)
        query |= _given(**{"continue": continuation})
        page = self._call("GET", _path(resource, namespace or ""), query)
        # Items of a list do not say what they are; objects elsewhere do.
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return Listing(
            items=[{**head, **item} for item in page["items"] or ()],
            resource_version=page["metadata"]["resourceVersion"],
            continuation=page["metadata"].get("continue", ""),
        )

    def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        labels: str = "",
        timeout_seconds: float = 300.0,
    ) -> Iterator[WatchEvent]:
        """See `Cluster.watch`. Ends by itself as well when the server has been silent too long."""
        query = _given(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            labelSelector=labels,
            timeoutSeconds=max(1, int(timeout_seconds)),
        )
        silence = min(WATCH_SILENCE_SECONDS, timeout_seconds + READ_SECONDS)
        response = self._open(
            "GET", _path(resource, namespace or ""), query, read_seconds=silence, stream=True
        )
        self._watches.add(response)
        try:
            if self._closed:
                return
            for line in _lines(response):
                yield _watch_event(line)
        finally:
            self._watches.discard(response)
            response.close()

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> Object:
        """See `Cluster.get`."""
        return self._call("GET", _path(resource, namespace, name))

    def create(self, resource: Resource, body: Object) -> Object:
        """See `Cluster.create`."""
        path = _path(resource, body["metadata"].get("namespace", ""))
        return self._call("POST", path, {"fieldManager": FIELD_MANAGER}, _typed(resource, body))

    def apply(self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """See `Cluster.apply`."""
        return self._apply(resource, _typed(resource, body), manager)

    def apply_status(
        self, resource: Resource, body: Object, *, manager: str = FIELD_MANAGER
    ) -> Object:
        """See `Cluster.apply_status`."""
        known = ("name", "namespace", "resourceVersion")
        metadata = {word: body["metadata"][word] for word in known if word in body["metadata"]}
        status = _typed(resource, {"metadata": metadata, "status": body["status"]})
        # Servers before 1.22 do not tell who owns what by subresource: as the same manager, an
        # apply of the status would give up what an apply of the rest owns.
        return self._apply(resource, status, f"{manager}-status", "/status")

    def patch(
        self, resource: Resource, name: str, change: Object, *, namespace: str = ""
    ) -> Object:
        """See `Cluster.patch`."""
        path = _path(resource, namespace, name)
        return self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, change, _MERGE)

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str = "",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """See `Cluster.delete`."""
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._call("DELETE", _path(resource, namespace, name), body=options)

    def _apply(
        self, resource: Resource, body: Object, manager: str, subresource: str = ""
    ) -> Object:
        metadata = body["metadata"]
        path = _path(resource, metadata.get("namespace", ""), metadata["name"]) + subresource
        return self._call("PATCH", path, {"fieldManager": manager, "force": "true"}, body, _APPLY)

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
    ) -> Object:
        response = self._open(method, path, query, body, content_type)
        try:
            answer = msgspec.json.decode(response.data)
        except msgspec.DecodeError:
            raise Unreachable(f"{method} {path}: the answer is not JSON") from None
        return cast(Object, answer)

    def _open(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
        *,
        read_seconds: float = READ_SECONDS,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        if self._closed:
            raise Unreachable(f"{method} {path}: this client is closed")
        headers = {**self._client.default_headers, "Accept": _JSON, "Content-Type": content_type}
        pairs: list[tuple[str, str]] = list((query or {}).items())
        # Reads the ServiceAccount's token anew when it is a minute old: it expires.
        self._client.update_params_for_auth(headers, pairs, ["BearerToken"])
        url = f"{self._host}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        try:
            response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                preload_content=not stream,
                retries=False,
            )
            if response.status >= 300:
                raise _error(method, path, response.status, response.data, response.headers)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        return response


def _path(resource: Resource, namespace: str, name: str = "") -> str:
    root = f"/apis/{resource.group}" if resource.group else "/api"
    scope = f"/namespaces/{quote(namespace)}" if namespace and resource.namespaced else ""
    thing = f"/{quote(name, safe=':')}" if name else ""
    return f"{root}/{resource.version}{scope}/{resource.plural}{thing}"


def _given(**words: str | int) -> dict[str, str]:
    return {word: str(value) for word, value in words.items() if value}


def _typed(resource: Resource, body: Object) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    try:
        # As it comes, also where a proxy has taken the server's chunks apart.
        while chunk := response.read1(_READ_BYTES, decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
    except urllib3.exceptions.ReadTimeoutError:
        return  # as good as an end: the caller goes on from the last version it saw
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(f"watch: {type(error).__name__}: {error}") from error


def _watch_event(line: bytes) -> WatchEvent:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        raise Unreachable("watch: a line is not JSON") from None
    if event["type"] == "ERROR":
        status = event["object"]
        raise _error("WATCH", "", status.get("code", 500), msgspec.json.encode(status), {})
    return WatchEvent(event["type"], event["object"])


def _error(method: str, path: str, code: int, data: bytes, headers: Any) -> ClusterError:
    """Return what a status code, and the Status object that comes with it, mean here."""
    try:
        status = msgspec.json.decode(data)
        assert isinstance(status, dict)
    except (msgspec.DecodeError, AssertionError):
        status = {"message": data[:200].decode(errors="replace")}
    message = f"{method} {path}: {code} {status.get('message', '')}"
    details = status.get("details") or {}
    causes = {cause.get("reason") for cause in details.get("causes") or ()}
    if code == 404:
        return NotFound(message)
    if code == 409:
        taken = status.get("reason") == "AlreadyExists"
        return AlreadyExists(message) if taken else Conflict(message)
    if code == 410:
        return Gone(message)
    if code in (401, 403):
        ends = "NamespaceTerminating" in causes
        return NamespaceTerminating(message) if ends else Forbidden(message)
    if code == 429 or code >= 500 or code < 400:
        wait = headers.get("Retry-After") or details.get("retryAfterSeconds")
        seconds = float(wait) if wait is not None and str(wait).isdigit() else None
        return Unreachable(message, retry_after_seconds=seconds)
    return Invalid(message)
