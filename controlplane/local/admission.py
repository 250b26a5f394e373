"""What an API server does to an object before it keeps it: pure, for `objects`.

Our own kinds are pruned, filled with defaults and checked by the very types that their
CustomResourceDefinitions are made of; of the kinds of Kubernetes only the few rules are checked
that this program can break.
"""

import base64
import re
from functools import cache
from typing import Any

from pydantic import ValidationError

from controlplane.cluster import PODS, SECRETS, Invalid, Object, Resource
from controlplane.crd.base import Model, Stored
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.crd.replica import Replica
from controlplane.crd.structural import structural

_STORED: dict[Resource, type[Stored[Any, Any]]] = {
    stored.resource: stored for stored in (InferenceDeployment, GPUEndpoint, Replica)
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# What may be changed of a pod that is there.
_POD_CHANGES = ("activeDeadlineSeconds", "tolerations", "nodeName")


def is_name(name: object) -> bool:
    """Return whether an object can be called so."""
    return isinstance(name, str) and len(name) <= 253 and _NAME.fullmatch(name) is not None


def is_ours(resource: Resource) -> bool:
    """Return whether it is one of our own kinds."""
    return resource in _STORED


def admitted(resource: Resource, body: Object, before: Object | None) -> Object:
    """Return an object as it is kept.

    Args:
        before: what it is changed from; None when it is created.

    Raises:
        Invalid: it breaks its schema, or changes what cannot be changed.
    """
    name = body["metadata"]["name"]
    if not is_name(name):
        raise Invalid(f"metadata.name: Invalid value: {name!r}")
    if resource in _STORED:
        return _ours(resource, body, before)
    if resource == SECRETS:
        return _secret(body)
    if resource == PODS:
        _check_pod(body, before)
    return body


def _ours(resource: Resource, body: Object, before: Object | None) -> Object:
    kind = _STORED[resource]
    if not isinstance(body.get("spec"), dict):
        raise Invalid("spec: Required value")
    out = {**body, "spec": completed(body["spec"], _schema(kind, "spec"))}
    if "status" in body:
        out["status"] = completed(body["status"], _schema(kind, "status"))
    try:
        stored = kind.of(out)
        if before is not None:
            _check_unchanged(kind, stored, kind.of(before))
    except ValidationError as error:
        raise Invalid(_sentence(resource, error)) from None
    return out


def completed(value: Any, schema: Object) -> Any:
    """Return a value without fields its schema does not know, with the schema's defaults."""
    if isinstance(value, dict) and "properties" in schema:
        out = {}
        for name, field in schema["properties"].items():
            if value.get(name) is not None:
                out[name] = completed(value[name], field)
            elif "default" in field:
                out[name] = completed(field["default"], field)
        return out
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        inner = schema["additionalProperties"]
        return {name: completed(field, inner) for name, field in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [completed(element, schema["items"]) for element in value]
    return value


@cache
def _schema(kind: type[Stored[Any, Any]], part: str) -> Object:
    model = kind.model_fields[part].annotation
    assert isinstance(model, type)
    assert issubclass(model, Model)
    return structural(model, defaults=part == "spec")


def _check_unchanged(kind: type[Stored[Any, Any]], now: Any, before: Any) -> None:
    """The rules of the schemas that compare with the object before."""
    fixed: tuple[str, ...]
    match kind.__name__:
        case "InferenceDeployment":
            fixed = ("path",)
        case "GPUEndpoint":
            fixed = ("tenant",)
        case _:
            fixed = ("configuration", "revision")
            if before.spec.drain and not now.spec.drain:
                raise Invalid("spec.drain: a drain is not taken back")
    for field in fixed:
        if getattr(now.spec, field) != getattr(before.spec, field):
            raise Invalid(f"spec.{field}: is immutable")


def _sentence(resource: Resource, error: ValidationError) -> str:
    parts = [
        f"{'.'.join(str(step) for step in it['loc'])}: {it['msg']}"
        for it in error.errors(include_url=False, include_input=False)
    ]
    return f"{resource.kind} is invalid: {'; '.join(parts)}"


def _secret(body: Object) -> Object:
    plain = body.get("stringData", {})
    data = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
    out = {name: value for name, value in body.items() if name != "stringData"}
    return {**out, "data": {**body.get("data", {}), **data}} if data else out


def _check_pod(body: Object, before: Object | None) -> None:
    spec = body.get("spec", {})
    if not spec.get("containers"):
        raise Invalid("spec.containers: Required value")
    for kind in ("containers", "initContainers", "volumes"):
        for at, element in enumerate(spec.get(kind) or ()):
            if not _LABEL.fullmatch(element.get("name", "")):
                raise Invalid(f"spec.{kind}[{at}].name: Invalid value: {element.get('name')!r}")
    if before is not None and _fixed(body["spec"]) != _fixed(before["spec"]):
        raise Invalid("spec: Forbidden: pod updates may not change fields other than the image")


def _fixed(spec: Object) -> Object:
    fixed = {name: value for name, value in spec.items() if name not in _POD_CHANGES}
    for kind in ("containers", "initContainers"):
        fixed[kind] = [
            {name: value for name, value in container.items() if name != "image"}
            for container in spec.get(kind, ())
        ]
    return fixed
