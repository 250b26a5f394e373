"""What a plan for an endpoint is made from. Filled by `controller`, plain data in tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.crd.configuration import GPUConfiguration
from controlplane.crd.endpoint import GPUEndpoint
from controlplane.crd.replica import Replica
from controlplane.operator.bare.ports import NOT_EXPOSED, Exposure
from controlplane.operator.tenants.namespace import Namespace


@dataclass(frozen=True)
class Access:
    """Where the SSH gateway listens, for `host` in a status."""

    host: str = ""
    fingerprint: str = ""


UNKNOWN = Access()
NOWHERE = Namespace()


@dataclass(frozen=True)
class Observed:
    """One endpoint and what there is of it.

    Attributes:
        replica: the lease it owns; there is never more than one.
        exposed: the ports that have a Service: container ports by name.
        has_volume: whether its volume claim is there.
        gpu_uuids: what the check before the customer's container saw.
        namespace: whose it is, what is in it and what must be.
        provable: whether there is an image that can prove GPUs clean.
    """

    endpoint: GPUEndpoint
    replica: Replica | None
    catalogue: Mapping[str, GPUConfiguration]
    exposed: Mapping[str, int] = field(default_factory=dict)
    has_volume: bool = False
    gpu_uuids: tuple[str, ...] = ()
    namespace: Namespace = NOWHERE
    provable: bool = True
    access: Access = UNKNOWN
    exposure: Exposure = NOT_EXPOSED
