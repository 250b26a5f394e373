"""The CRDs, made of the types: structural OpenAPI schemas with defaults, rules and columns.

    python -m controlplane.crd.schema charts/flashplane-crds/files

writes them where the chart reads them. `HASH_ANNOTATION` lets an operator see that the cluster's
CRDs are older than itself.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from controlplane.cluster import Object
from controlplane.crd.base import GROUP, VERSION, Model, Stored
from controlplane.crd.endpoint import GPUEndpoint, GPUEndpointSpec, GPUEndpointStatus
from controlplane.crd.inference import (
    InferenceDeployment,
    InferenceDeploymentSpec,
    InferenceDeploymentStatus,
)
from controlplane.crd.replica import Replica, ReplicaSpec, ReplicaStatus
from controlplane.crd.structural import structural, without_rules

HASH_ANNOTATION = f"{GROUP}/schema-hash"

_TYPES: tuple[tuple[type[Stored[Any, Any]], type[Model], type[Model]], ...] = (
    (InferenceDeployment, InferenceDeploymentSpec, InferenceDeploymentStatus),
    (GPUEndpoint, GPUEndpointSpec, GPUEndpointStatus),
    (Replica, ReplicaSpec, ReplicaStatus),
)
_SHORT_NAMES = {"InferenceDeployment": ["infd"], "GPUEndpoint": ["gpue"], "Replica": ["fpr"]}
_READY = ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status')
_AGE = ("Age", "date", ".metadata.creationTimestamp")
_COLUMNS = {
    "InferenceDeployment": (
        _READY,
        ("Path", "string", ".spec.path"),
        ("Serving", "integer", ".status.serving"),
        ("Desired", "integer", ".status.desired"),
        ("Held", "integer", ".status.heldRequests"),
        ("GPUs", "integer", ".status.gpus"),
        ("$/h", "number", ".status.hourlyUsd"),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
        _AGE,
    ),
    "GPUEndpoint": (
        ("Phase", "string", ".status.phase"),
        ("Host", "string", ".status.host"),
        ("Replica", "string", ".status.replica"),
        ("$/h", "number", ".status.hourlyUsd"),
        _AGE,
    ),
    "Replica": (
        ("Phase", "string", ".status.phase"),
        ("Owner", "string", ".spec.owner"),
        ("Node", "string", ".status.placements[*].node"),
        ("Weight", "integer", ".spec.weight"),
        _AGE,
    ),
}


def definitions(*, rules: bool = True) -> list[Object]:
    """Return the three CustomResourceDefinitions.

    Args:
        rules: with CEL rules, which servers before 1.25 refuse.
    """
    return [_definition(stored, spec, status, rules) for stored, spec, status in _TYPES]


def schema_hash() -> str:
    """Return what tells one version of the schemas from another."""
    parts = [(structural(spec), structural(status)) for _, spec, status in _TYPES]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _definition(
    stored: type[Stored[Any, Any]], spec: type[Model], status: type[Model], rules: bool
) -> Object:
    kind, plural = stored.resource.kind, stored.resource.plural
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {"helm.sh/resource-policy": "keep", HASH_ANNOTATION: schema_hash()},
            "labels": {"app.kubernetes.io/part-of": "flashplane"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": _SHORT_NAMES[kind],
                "categories": ["flashplane"],
            },
            "versions": [_version(stored, _schema(stored, spec, status, rules))],
        },
    }


def _version(stored: type[Stored[Any, Any]], schema: Object) -> Object:
    kind = stored.resource.kind
    subresources: Object = {"status": {}}
    if kind == "InferenceDeployment":
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    columns = [
        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in _COLUMNS[kind]
    ]
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }


def _schema(
    stored: type[Stored[Any, Any]], spec: type[Model], status: type[Model], rules: bool
) -> Object:
    wanted = structural(spec)
    # What the operator found true is no wish to be refused.
    found = without_rules(structural(status, defaults=False))
    return {
        "type": "object",
        "description": _first_line(sys.modules[stored.__module__].__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": wanted if rules else without_rules(wanted),
            "status": _of_one_writer(found),
        },
    }


def _of_one_writer(status: Object) -> Object:
    """Return a status' schema in which every object inside is written as a whole.

    A status has one writer. Otherwise an object that is left out would have its fields removed one
    by one, of which old servers make a null, and refuse it.
    """
    parts = {
        name: it | {"x-kubernetes-map-type": "atomic"} if "properties" in it else it
        for name, it in status["properties"].items()
    }
    return status | {"properties": parts}


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def render(folder: Path) -> list[Path]:
    """Write one file a CRD into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for definition in definitions():
        file = folder / f"{definition['spec']['names']['plural']}.yaml"
        file.write_text(yaml.safe_dump(definition, sort_keys=False, width=100, allow_unicode=True))
        files.append(file)
    return files


if __name__ == "__main__":
    render(Path(sys.argv[1]))
