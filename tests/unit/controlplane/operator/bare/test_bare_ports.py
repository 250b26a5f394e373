"""Ports of endpoints as Services, Ingresses and URLs, whatever they are called."""

import re

import pytest

from controlplane.crd.endpoint import GPUEndpoint, Port
from controlplane.operator.bare.ports import Exposure, ingress, object_name, service, urls

SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
HOST_PART = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAMESPACE = "fp-3f2b0c1e-6a0f-4d1e-9d53-0a7c2f1f8d11"
OUTSIDE = Exposure(domain="gpu.example.com")


def endpoint(name: str, *ports: str) -> GPUEndpoint:
    return GPUEndpoint.of(
        {
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": "u"},
            "spec": {
                "tenant": "t",
                "configurations": ["h200"],
                "ports": [{"name": it, "port": 8000 + at} for at, it in enumerate(ports)],
            },
        }
    )


@pytest.mark.parametrize("name", ["dev", "3d", "e" * 50, "a--b"])
@pytest.mark.parametrize("port", ["web", "8888", "p" * 50, "tensorboard-of-x", "a--b"])
def test_every_name_of_an_order_makes_names_that_are_taken(name: str, port: str) -> None:
    made = endpoint(name, port)
    declared = Port(name=port, port=8000)
    body = service(made, declared, {})
    assert SERVICE_NAME.fullmatch(body["metadata"]["name"])
    assert "name" not in body["spec"]["ports"][0]
    way = ingress(made, declared, {}, OUTSIDE)
    (rule,) = way["spec"]["rules"]
    assert HOST_PART.fullmatch(rule["host"].removesuffix(".gpu.example.com"))
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == body["metadata"]["name"]
    assert urls(made, OUTSIDE) == {port: f"https://{rule['host']}"}


def test_long_names_stay_apart() -> None:
    long = endpoint("e" * 50, "p" * 49 + "a", "p" * 49 + "b")
    assert len(set(urls(long, OUTSIDE).values())) == 2
    assert len({object_name(long, it.name) for it in long.spec.ports}) == 2


def test_short_names_can_be_read() -> None:
    assert object_name(endpoint("dev", "web"), "web") == "dev-web"
    assert urls(endpoint("dev", "web"), OUTSIDE)["web"] == (
        f"https://web-dev-{NAMESPACE}.gpu.example.com"
    )
