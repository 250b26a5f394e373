"""What an app keeps for its routes. Made by `app`, read by `contract` and `deps`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import CapacityLimiter
from sqlalchemy.orm import Session, sessionmaker

from controlplane.api.contract.callers import Prover
from controlplane.billing.invoices.profiles import Seller
from controlplane.deployments.orders import Terms

if TYPE_CHECKING:
    from controlplane.api.contract.route import Contract


@dataclass(frozen=True, slots=True)
class ApiState:
    """`request.app.state.api`.

    Attributes:
        seller: what invoices tell of us.
        payment_secrets: what payment events are signed with.
        webhooks_to_loopback: whether webhooks may go to this machine.
        readers: by path, the routes that show what can be changed there.
        entrance: threads in which requests wait for a connection to the database. They are apart
            from those that requests with a connection go on in, which could else all be taken by
            requests that wait for these.
    """

    sessions: sessionmaker[Session]
    prover: Prover
    terms: Terms
    seller: Seller
    payment_secrets: tuple[bytes, ...]
    webhooks_to_loopback: bool
    readers: Mapping[str, "Contract"]
    entrance: CapacityLimiter

    @property
    def pepper(self) -> bytes:
        """What keys are hashed with."""
        return self.prover.pepper
