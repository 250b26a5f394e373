"""The ports of an endpoint as HTTPS: a Service and an Ingress each; pure. Called by `plan`."""

import hashlib
from dataclasses import dataclass

from controlplane.cluster import Object, Resource
from controlplane.crd.base import OWNER_LABEL
from controlplane.crd.endpoint import GPUEndpoint, Port
from controlplane.operator.bare.pods import COMPONENT
from controlplane.operator.manifests.base import COMPONENT_LABEL

INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
PORT_LABEL = "flashplane.io/port"
LABEL_LENGTH = 63  # of a part of a host name, and of a Service's name


@dataclass(frozen=True)
class Exposure:
    """How ports are reached from outside; without a domain none is.

    Attributes:
        domain: a port is `https://<port name>-<endpoint>-<namespace>.<domain>`; a first part that
            is too long for host names is a hash instead.
        ingress_class: the IngressClass; empty: the cluster's default.
        tls_secret: a Secret with a certificate of `*.<domain>`, known to the ingress controller.
    """

    domain: str = ""
    ingress_class: str = ""
    tls_secret: str = ""


NOT_EXPOSED = Exposure()


def urls(endpoint: GPUEndpoint, exposure: Exposure) -> dict[str, str]:
    """Return the ports' URLs by name."""
    if not exposure.domain:
        return {}
    return {port.name: f"https://{_host(endpoint, port, exposure)}" for port in endpoint.spec.ports}


def service(endpoint: GPUEndpoint, port: Port, owner: Object) -> Object:
    """Return the Service of a port; without a node port, reachable inside the cluster alone."""
    spec = {
        "type": "ClusterIP",
        "selector": {OWNER_LABEL: endpoint.name, COMPONENT_LABEL: COMPONENT},
        "ports": [{"port": 80, "targetPort": port.port, "protocol": "TCP"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(endpoint, port, owner),
        "spec": spec,
    }


def ingress(endpoint: GPUEndpoint, port: Port, owner: Object, exposure: Exposure) -> Object:
    """Return the Ingress of a port: one host name, TLS, no buffering and no timeout of an hour."""
    host = _host(endpoint, port, exposure)
    backend = {"service": {"name": object_name(endpoint, port.name), "port": {"number": 80}}}
    spec: Object = {
        "rules": [
            {
                "host": host,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ],
        "tls": [{"hosts": [host], **_secret(exposure)}],
    }
    if exposure.ingress_class:
        spec["ingressClassName"] = exposure.ingress_class
    metadata = _metadata(endpoint, port, owner)
    metadata["annotations"] = {
        "nginx.ingress.kubernetes.io/proxy-buffering": "off",
        "nginx.ingress.kubernetes.io/proxy-read-timeout": "3600",
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata,
        "spec": spec,
    }


def object_name(endpoint: GPUEndpoint, port_name: str) -> str:
    """Return the name of a port's Service and Ingress; a Service's begins with a letter."""
    name = f"{endpoint.name}-{port_name}"
    return name if len(name) <= LABEL_LENGTH and name[0].isalpha() else f"port-{_short(name)}"


def _host(endpoint: GPUEndpoint, port: Port, exposure: Exposure) -> str:
    label = f"{port.name}-{endpoint.name}-{endpoint.namespace}"
    if len(label) > LABEL_LENGTH:  # no resolver would find it
        label = f"port-{_short(label)}"
    return f"{label}.{exposure.domain}"


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _secret(exposure: Exposure) -> dict[str, str]:
    return {"secretName": exposure.tls_secret} if exposure.tls_secret else {}


def _metadata(endpoint: GPUEndpoint, port: Port, owner: Object) -> Object:
    return {
        "name": object_name(endpoint, port.name),
        "namespace": endpoint.namespace,
        "labels": {OWNER_LABEL: endpoint.name, PORT_LABEL: port.name},
        "ownerReferences": [owner],
    }
