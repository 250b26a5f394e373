"""What may be ordered on a path: specs as customers send them, checked and completed. Pure.

The types of the custom resources are the schema; this adds who may ask for what. Called by `orders`
and `projection`.
"""

import base64
import binascii
import math
import re
import struct
import uuid
from typing import Any, TypeAlias

from pydantic import ValidationError

from controlplane.crd.base import Path
from controlplane.crd.endpoint import GPUEndpointSpec
from controlplane.crd.inference import InferenceDeploymentSpec
from controlplane.crd.responsibility import RESPONSIBILITY, Layer, Party
from controlplane.errors import NotResponsible, UnprocessableRequest

Spec: TypeAlias = InferenceDeploymentSpec | GPUEndpointSpec
Json: TypeAlias = dict[str, Any]

# Fields by whose work they are: where the other party owns scaling and runtime they are refused.
_RUNTIME_FIELDS = {
    Party.PLATFORM: (
        *("engine", "weights", "replicas", "scaling", "budgetGPUs", "holdTimeoutSeconds"),
        *("rollout", "drain", "windows", "isolation", "model"),
    ),
    Party.CUSTOMER: ("image", "cuda", "command", "env", "sshKeys", "ports", "volume"),
}
MOST_NESTED = 16
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_OWN_MOUNTS = ("/dev/", "/proc/", "/sys/")
# Of the platform's engine, a tenant chooses what it does, not what program it is.
_ENGINE_OF_PLATFORM = ("image", "arguments")
_SSH_KEY_TYPES = (
    *("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"),
    *("ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
)


def namespace_of(tenant_id: uuid.UUID) -> str:
    """Return the namespace of a tenant's dedicated deployments and bare endpoints."""
    return f"fp-{tenant_id}"


def parse(path: Path, given: Json, *, tenant_id: uuid.UUID | None, by_tenant: bool) -> Spec:
    """Return a checked spec of an order.

    Args:
        path: decides the type.
        given: the spec in wire form, without path and tenant.
        tenant_id: whose it is; None for a serverless pool.
        by_tenant: a tenant asks, not a platform admin.

    Raises:
        NotResponsible: asks for what the other party owns on this path.
        UnprocessableRequest: breaks the schema or a rule; `param` is the field.
    """
    check_storable(given)
    refuse_others_work(path, given, by_tenant=by_tenant)
    for own in ("path", "tenant"):
        if own in given:
            raise UnprocessableRequest(f"spec.{own} follows from the order.", param=f"spec.{own}")
    tenant = {} if tenant_id is None else {"tenant": str(tenant_id)}
    spec: Spec
    try:
        if path is Path.BARE:
            spec = GPUEndpointSpec.model_validate(given | tenant)
        else:
            spec = InferenceDeploymentSpec.model_validate(given | tenant | {"path": path.value})
    except ValidationError as error:
        raise _in_words(error) from None
    if isinstance(spec, GPUEndpointSpec):
        _check_keys(spec)
        _check_container(spec)
    return spec


def stored(path: str, spec: Json) -> Spec:
    """Return the spec of a row; it was checked when it was written."""
    if path == Path.BARE:
        return GPUEndpointSpec.model_validate(spec)
    return InferenceDeploymentSpec.model_validate(spec)


def merged(target: Any, change: Any) -> Any:
    """Return `target` with a JSON merge patch applied (RFC 7386): null takes a field away."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def is_stopped(spec: Spec) -> bool:
    """Return whether a spec asks for no GPUs."""
    if isinstance(spec, GPUEndpointSpec):
        return spec.state == "Stopped"
    return spec.stopped


def with_stopped(spec: Spec, stopped: bool) -> Spec:
    """Return a spec, stopped or not."""
    if isinstance(spec, GPUEndpointSpec):
        return spec.model_copy(update={"state": "Stopped" if stopped else "Running"})
    return spec.model_copy(update={"stopped": stopped})


def check_storable(value: Any, depth: int = 0) -> None:
    """Refuse what neither PostgreSQL nor Kubernetes can keep, anywhere in a JSON value.

    Raises:
        UnprocessableRequest: a NUL or half a character, an endless number, or endless nesting.
    """
    if isinstance(value, dict):
        children: list[Any] = [*value, *value.values()]
    else:
        children = value if isinstance(value, list) else []
    is_wrong = (
        depth > MOST_NESTED
        or (isinstance(value, float) and not math.isfinite(value))
        or (isinstance(value, str) and ("\x00" in value or not _is_unicode(value)))
    )
    if is_wrong:
        raise UnprocessableRequest(
            "spec: holds a number, character or depth that cannot be stored.", param="spec"
        )
    for child in children:
        check_storable(child, depth + 1)


def refuse_others_work(path: Path, given: Json, *, by_tenant: bool) -> None:
    """Raise `NotResponsible` where a spec, or a change of one, asks for the other party's work."""
    owner = RESPONSIBILITY[path][Layer.SCALING_AND_RUNTIME]
    other = Party.CUSTOMER if owner is Party.PLATFORM else Party.PLATFORM
    for name in given:
        if name in _RUNTIME_FIELDS[other]:
            raise NotResponsible(
                f"On the {path} path the {owner} owns scaling and runtime: {name} is not set here.",
                param=f"spec.{name}",
            )
    engine = given.get("engine")
    if by_tenant and owner is Party.PLATFORM and isinstance(engine, dict):
        for name in _ENGINE_OF_PLATFORM:
            if name in engine:
                raise NotResponsible(
                    f"On the {path} path the platform runs the engine: ask it for another {name}.",
                    param=f"spec.engine.{name}",
                )


def refuse_another_program(before: Spec, after: Spec) -> None:
    """Raise `NotResponsible` where a tenant's change takes away what the platform has chosen, as
    taking away the whole engine would."""
    if isinstance(before, GPUEndpointSpec) or isinstance(after, GPUEndpointSpec):
        return
    for name in _ENGINE_OF_PLATFORM:
        if getattr(before.engine, name) != getattr(after.engine, name):
            raise NotResponsible(
                f"The platform runs the engine, and has chosen its {name}.",
                param=f"spec.engine.{name}",
            )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_words(error: ValidationError) -> UnprocessableRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(["spec", *(str(part) for part in first["loc"])])
    return UnprocessableRequest(f"{where}: {first['msg']}", param=where)


def _check_keys(spec: GPUEndpointSpec) -> None:
    seen: set[str] = set()
    for index, key in enumerate(spec.ssh_keys):
        where = f"spec.sshKeys.{index}"
        if key.name in seen:
            raise UnprocessableRequest(f"{where}: another key is called so.", param=f"{where}.name")
        seen.add(key.name)
        if not _is_public_key(key.public_key):
            raise UnprocessableRequest(
                f"{where}: not a public key as in authorized_keys.", param=f"{where}.publicKey"
            )


def _check_container(spec: GPUEndpointSpec) -> None:
    """Refuse what makes a pod that no API server takes: its endpoint would never start."""
    for name in spec.env:
        if not _VARIABLE.fullmatch(name):
            raise UnprocessableRequest(
                "spec.env: a name is letters, digits, _, - and ., and begins with no digit.",
                param="spec.env",
            )
    if spec.volume is not None:
        path = spec.volume.mount_path
        if ":" in path or ".." in path.split("/") or f"{path}/".startswith(_OWN_MOUNTS):
            raise UnprocessableRequest(
                "spec.volume.mountPath: a path without : and .., outside /dev, /proc and /sys.",
                param="spec.volume.mountPath",
            )


def _is_public_key(line: str) -> bool:
    """Return whether `line` is `<type> <base64> [comment]` whose base64 begins with the type."""
    words = line.split(maxsplit=2)
    if len(words) < 2 or words[0] not in _SSH_KEY_TYPES or not line.isprintable():
        return False
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return False
    name = words[0].encode()
    return blob.startswith(struct.pack(">I", len(name)) + name) and len(blob) > 4 + len(name)
