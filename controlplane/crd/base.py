"""What all resource types share: camel case on the wire, strict specs, lenient status."""

from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from controlplane.cluster import Object, Resource

GROUP = "flashplane.io"
VERSION = "v1alpha1"

DEPLOYMENTS = Resource(GROUP, VERSION, "inferencedeployments", "InferenceDeployment")
ENDPOINTS = Resource(GROUP, VERSION, "gpuendpoints", "GPUEndpoint")
REPLICAS = Resource(GROUP, VERSION, "replicas", "Replica")

# Labels and annotations that are part of the contract.
TENANT_LABEL = f"{GROUP}/tenant"  # on a namespace: the tenant it belongs to
SUSPENDED_LABEL = f"{GROUP}/suspended"  # on a namespace: nothing may run there, a `Suspension`
OWNER_LABEL = f"{GROUP}/owner"  # on a Replica, Pod, ...: the name of the deployment or endpoint
REPLICA_LABEL = f"{GROUP}/replica"  # on what a Replica owns
ROW_ANNOTATION = f"{GROUP}/deployment-id"  # on a projected object: its row; absent: hand-written
FINALIZER = f"{GROUP}/release"  # removed only when the GPUs are proven free

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=50)]


class Path(StrEnum):
    """The three ways to sell a GPU."""

    SERVERLESS = "serverless"
    DEDICATED = "dedicated"
    BARE = "bare"


class Suspension(StrEnum):
    """Why nothing may run in a tenant's namespace."""

    FUNDS = "insufficient_balance"
    TENANT = "tenant_suspended"


class Rule(NamedTuple):
    """A CEL rule of a schema: `self` is the object of the class it stands in."""

    expression: str
    message: str


class Model(BaseModel):
    """Base of every type: snake case here, camel case on the wire, immutable, strict."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def wire(self) -> Object:
        """Return the JSON form, without what is None, or empty text by default."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @model_serializer(mode="wrap")
    def _without_empty(
        self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if not info.by_alias:
            return values
        # Servers before 1.21 take an empty text that is applied for null, and refuse it.
        empty = _empty_by_default(type(self))
        return {name: value for name, value in values.items() if value != "" or name not in empty}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema["x-kubernetes-validations"] = [
                {"rule": rule.expression, "message": rule.message} for rule in cls.rules
            ]
        return schema


@cache
def _empty_by_default(model: type[BaseModel]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(it.alias or name for name, it in fields if it.default == "")


class StatusModel(Model):
    """Base of status types: what a newer version wrote is ignored."""

    model_config = ConfigDict(extra="ignore")

    def wire(self) -> Object:
        """Return the JSON form, without what is None or an empty text: server-side apply of API
        servers before 1.22 takes an empty text for null, and refuses it."""
        said: Object = _without_empty_texts(super().wire())
        return said


def _without_empty_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty_texts(it) for key, it in value.items() if it != ""}
    if isinstance(value, list):
        return [_without_empty_texts(it) for it in value]
    return value


Spec = TypeVar("Spec", bound=Model)
Status = TypeVar("Status", bound=StatusModel)


class Stored(BaseModel, Generic[Spec, Status]):
    """An object as the API server holds it: the parts that are ours, typed."""

    model_config = ConfigDict(frozen=True)
    resource: ClassVar[Resource]

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    created_at: float
    deleting: bool
    finalized: bool  # our finalizer is not, or no longer, on it
    annotations: dict[str, str]
    finalizers: tuple[str, ...] = ()
    spec: Spec
    status: Status

    @property
    def key(self) -> str:
        """`<namespace>/<name>`."""
        return f"{self.namespace}/{self.name}"

    def owner_reference(self) -> Object:
        """Return what makes another object this one's alone: it goes when this one has gone."""
        return {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    @classmethod
    def of(cls, body: Object) -> Self:
        """Return an object's typed form.

        Raises:
            pydantic.ValidationError: its spec breaks a rule that the API server did not check.
        """
        metadata = body["metadata"]
        fields: dict[str, Any] = {
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
            "generation": metadata.get("generation", 0),
            "resource_version": metadata.get("resourceVersion", ""),
            "created_at": seconds(metadata["creationTimestamp"])
            if "creationTimestamp" in metadata
            else 0.0,
            "deleting": "deletionTimestamp" in metadata,
            "finalized": FINALIZER not in metadata.get("finalizers", ()),
            "finalizers": metadata.get("finalizers", ()),
            "annotations": metadata.get("annotations", {}),
            "spec": body["spec"],
            "status": body.get("status", {}),
        }
        return cls(**fields)

    @classmethod
    def body(cls, namespace: str, name: str, **parts: object) -> Object:
        """Return the beginning of an object to write; `metadata` in `parts` is merged in."""
        metadata = {"namespace": namespace, "name": name}
        metadata.update(parts.pop("metadata", {}))  # type: ignore[call-overload]
        head = {"apiVersion": cls.resource.api_version, "kind": cls.resource.kind}
        return {**head, "metadata": metadata, **parts}


def timestamp(seconds: float) -> str:
    """Return Kubernetes' form of a moment, to the second: `2026-11-22T10:00:00Z`."""
    return datetime.fromtimestamp(int(seconds), UTC).replace(tzinfo=None).isoformat() + "Z"


def seconds(timestamp: str) -> float:
    """Return seconds since 1970 UTC of Kubernetes' form of a moment."""
    return datetime.fromisoformat(timestamp).timestamp()
