"""A catalogue, GPU prices and orders for tests of deployments."""

from typing import Any

from sqlalchemy.orm import Session

from controlplane.crd.configuration import GPUConfiguration
from controlplane.deployments.models import OfferedConfiguration
from controlplane.money import P_PER_USD
from controlplane.pricing import gpu

H200 = GPUConfiguration(id="h200-x4", gpu="H200", count=4, memory_gib=140)
H200_SPOT = H200.model_copy(update={"id": "h200-x4-spot", "spot": True})
SMALL = GPUConfiguration(id="rtx-4090", gpu="RTX-4090", architecture="ada", memory_gib=24)
RATE_P = 20 * P_PER_USD
DEDICATED: dict[str, Any] = {
    "configurations": ["h200-x4"],
    "replicas": 1,
    "engine": {"name": "vllm"},
}
BARE: dict[str, Any] = {"configurations": ["rtx-4090"]}
PUBLIC_KEY = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPlI4rkvHTVcXzO1mBrBJRlBDrPuXvhEu3IfZ/9bT1WO me@laptop"
)


def stock(session: Session, free: int | None = 2) -> None:
    """Put a catalogue and prices into a database."""
    for position, configuration in enumerate((H200, H200_SPOT, SMALL)):
        session.add(
            OfferedConfiguration(
                id=configuration.id,
                body=configuration.wire(),
                position=position,
                free_replicas=free,
            )
        )
    for name, kind, rate_p in (
        ("h200-x4", "on_demand", RATE_P),
        ("h200-x4-spot", "spot", RATE_P // 2),
        ("rtx-4090", "on_demand", P_PER_USD // 2),
    ):
        assert kind in ("on_demand", "spot")
        gpu.publish(
            session,
            configuration=name,
            kind="spot" if kind == "spot" else "on_demand",
            rate_p_per_hour=rate_p,
        )
