"""A tenant's namespace, kept as `manifests.tenant` says: what is missing or altered is put back.

Only a namespace that carries the tenant's label is touched; the label is not given here, since
whoever may write a deployment may not thereby take a namespace. Called by `plan` and `status`.
"""

from collections.abc import Iterator

from controlplane.cluster import Object, Resource, key_of
from controlplane.operator.actions import Apply
from controlplane.operator.deployment.observed import Namespace
from controlplane.operator.manifests.tenant import holds


def repairs(namespace: Namespace) -> Iterator[Apply]:
    """Yield what makes the namespace as it must be; nothing while it cannot be read."""
    if namespace.live is None or namespace.terminating:
        return
    for resource, body in missing(namespace):
        yield Apply(resource, body)


def missing(namespace: Namespace) -> list[tuple[Resource, Object]]:
    """Return the wanted objects that are not there, or differ in what we say of them."""
    live = namespace.live or {}
    return [
        (resource, body)
        for resource, body in namespace.wanted
        if not holds(live.get((resource.plural, key_of(body)[1])), body)
    ]
