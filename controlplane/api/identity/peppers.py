"""Admin route that tells how far a rotation of the pepper has come."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from controlplane.api.contract.route import Contract
from controlplane.api.deps import Admin, Db, State
from controlplane.tenants import keys

router = APIRouter(prefix="/admin/v1", tags=["keys"], route_class=Contract)


class PeppersOut(BaseModel):
    """Live keys by the pepper that hashed them. At use a key is hashed with the newest one."""

    current: int
    other: int = Field(description="still the previous pepper's: keep it until this is 0")
    unknown: int = Field(
        description="not used since this is told; count them as the previous one's"
    )


@router.get("/peppers")
def get_peppers(session: Db, admin: Admin, state: State) -> PeppersOut:
    """Tell how many live keys still need the previous pepper."""
    return PeppersOut(**keys.by_pepper(session, state.pepper))
