"""What an app keeps for its routes. Made by `app`, read by `contract` and `deps`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session, sessionmaker

from controlplane.api.callers import Prover
from controlplane.deployments.orders import Terms

if TYPE_CHECKING:
    from controlplane.api.contract import Contract


@dataclass(frozen=True, slots=True)
class ApiState:
    """`request.app.state.api`.

    Attributes:
        webhooks_to_loopback: whether webhooks may go to this machine.
        readers: by path, the routes that show what can be changed there.
    """

    sessions: sessionmaker[Session]
    prover: Prover
    terms: Terms
    webhooks_to_loopback: bool
    readers: Mapping[str, "Contract"]

    @property
    def pepper(self) -> bytes:
        """What keys are hashed with."""
        return self.prover.pepper
