"""Custom resources as rows see them: reading all of them, and the body a row asks for.

Called by `projection`.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import ValidationError

from controlplane.cluster import Cluster, Object, Resource
from controlplane.crd.base import GROUP, ROW_ANNOTATION, Path, Stored
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.inference import InferenceDeployment
from controlplane.deployments.models import Deployment
from controlplane.deployments.specs import Spec, stored, with_stopped

# The field manager of specs; the operator's own manager writes status and what it makes of them.
MANAGER = "flashplane-deployments"
GENERATION_ANNOTATION = f"{GROUP}/deployment-generation"

Key: TypeAlias = tuple[str, str]

_KINDS: tuple[type[Stored[Any, Any]], ...] = (InferenceDeployment, GPUEndpoint)


@dataclass(frozen=True)
class Seen:
    """An InferenceDeployment or GPUEndpoint as listed."""

    kind: type[Stored[Any, Any]]
    body: Object

    @property
    def key(self) -> Key:
        return self._metadata["namespace"], self._metadata["name"]

    @property
    def uid(self) -> str:
        return str(self._metadata["uid"])

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self._metadata

    @property
    def row_id(self) -> uuid.UUID | None:
        """The row it was projected from; None when written by hand."""
        try:
            return uuid.UUID(self._annotations.get(ROW_ANNOTATION, ""))
        except ValueError:
            return None

    @property
    def row_generation(self) -> int:
        """The row's generation that its spec shows."""
        text = str(self._annotations.get(GENERATION_ANNOTATION, ""))
        return int(text) if text.isdecimal() else 0

    @property
    def path(self) -> str:
        return Path.BARE if self.kind is GPUEndpoint else str(self.body["spec"].get("path", ""))

    @property
    def status(self) -> Object:
        status: Object = storable(self.body.get("status", {}))
        return status

    @property
    def status_is_current(self) -> bool:
        """Whether the status speaks of the spec that is there now."""
        return bool(self.status.get("observedGeneration") == self._metadata.get("generation"))

    def shows(self, row: Deployment, *, suspended: bool) -> bool:
        """Return whether it says what the row of a tenant, `suspended` or not, does."""
        if (self.row_id, self.row_generation) != (row.id, row.generation):
            return False
        if not (suspended or row.out_of_funds) and self.body["spec"] == row.spec:
            return True
        try:
            return bool(self.kind.of(self.body).spec == effective(row, suspended=suspended))
        except ValidationError:
            return False

    @property
    def _metadata(self) -> Object:
        metadata: Object = self.body["metadata"]
        return metadata

    @property
    def _annotations(self) -> Object:
        annotations: Object = self._metadata.get("annotations") or {}
        return annotations


def all_of(cluster: Cluster) -> dict[Resource, dict[Key, Seen]]:
    """Return every deployment and endpoint of the cluster by kind and key.

    Raises:
        ClusterError: any page could not be read; a part is never taken for the whole.
    """
    return {
        kind.resource: {
            seen.key: seen for body in pages(cluster, kind.resource) for seen in (Seen(kind, body),)
        }
        for kind in _KINDS
    }


def pages(cluster: Cluster, resource: Resource, **selection: str) -> Iterator[Object]:
    """Yield every object of a kind."""
    continuation = ""
    while True:
        page = cluster.list(resource, continuation=continuation, **selection)  # type: ignore[arg-type]
        yield from page.items
        continuation = page.continuation
        if not continuation:
            return


def storable(value: Any) -> Any:
    """Return a JSON value without NUL characters, which PostgreSQL cannot keep."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(name): storable(item) for name, item in value.items()}
    return value


def effective(row: Deployment, *, suspended: bool) -> Spec:
    """Return what the cluster is asked for: the spec, stopped while there is no money for it or
    its tenant is suspended."""
    spec = stored(row.path, row.spec)
    return with_stopped(spec, True) if suspended or row.out_of_funds else spec


def kind_of(row: Deployment) -> type[Stored[Any, Any]]:
    """Return the type of a row's object."""
    return GPUEndpoint if row.path == Path.BARE else InferenceDeployment


def body_of(row: Deployment, *, suspended: bool) -> Object:
    """Return a row's object, to be applied."""
    annotations = {ROW_ANNOTATION: str(row.id), GENERATION_ANNOTATION: str(row.generation)}
    return kind_of(row).body(
        row.namespace,
        row.name,
        metadata={"annotations": annotations},
        spec=effective(row, suspended=suspended).wire(),
    )
