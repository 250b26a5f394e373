"""A tenant's namespace, kept as `manifests.tenant` says: what is missing or altered is put back.

Only a namespace that carries the tenant's label is touched; the label is not given here, since
whoever may write a deployment may not thereby take a namespace. Called by the plans and statuses of
deployments and endpoints.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from controlplane.cluster import Object, Resource, key_of
from controlplane.crd.base import Suspension
from controlplane.crd.conditions import Reason, Status
from controlplane.operator.actions import Apply
from controlplane.operator.manifests.tenant import holds

_WHY_SUSPENDED = {
    Suspension.FUNDS: "its tenant's money is used up: it runs again when some comes in",
    Suspension.TENANT: "its tenant is suspended",
}


@dataclass(frozen=True)
class Namespace:
    """A namespace of deployments and endpoints.

    Attributes:
        tenant: whose it is by its label; empty: nobody's.
        terminating: it is being deleted, or gone.
        wanted: what must be in it, from `manifests.tenant`.
        live: what is in it, by plural and name; None: not read.
        suspended: why nothing may run there, by its label; empty: nothing is in the way.
    """

    tenant: str = ""
    terminating: bool = False
    wanted: tuple[tuple[Resource, Object], ...] = ()
    live: Mapping[tuple[str, str], Object] | None = field(default=None, repr=False)
    suspended: str = ""

    @property
    def why_suspended(self) -> str:
        """Why nothing may run there, for people; empty: nothing is in the way."""
        known = self.suspended in list(Suspension)
        return _WHY_SUSPENDED[Suspension(self.suspended)] if known else self.suspended

    @cached_property
    def missing(self) -> Sequence[tuple[Resource, Object]]:
        """The wanted objects that are not there, or differ in what we say of them."""
        live = self.live or {}
        return [
            (resource, body)
            for resource, body in self.wanted
            if not holds(live.get((resource.plural, key_of(body)[1])), body)
        ]


def repairs(namespace: Namespace) -> Iterator[Apply]:
    """Yield what makes the namespace as it must be; nothing while it cannot be read."""
    if namespace.live is None or namespace.terminating:
        return
    for resource, body in namespace.missing:
        yield Apply(resource, body)


def isolation(namespace: Namespace) -> tuple[Status, Reason, str]:
    """Return the condition IsolationEnforced of what runs there: status, reason, message."""
    if namespace.live is None:
        return "Unknown", Reason.STALE, "the namespace could not be read"
    gone = [f"{resource.kind} {body['metadata']['name']}" for resource, body in namespace.missing]
    if gone:
        return "False", Reason.STARTING, f"being put in place: {', '.join(gone)}"
    return "True", Reason.AS_WANTED, ""
