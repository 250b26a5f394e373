"""What the REST API takes, and gives of tenants and keys; money it tells in `statements`, prices in
`price_schemas`.

Amounts and prices are decimal strings in USD: JSON readers turn long numbers into doubles.
"""

import uuid
from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from controlplane.amounts import Usd
from controlplane.tenants.keys import ALL_SCOPES, Scope

# Printable, so that a name never breaks a log line, a terminal or PostgreSQL's text (no NUL).
Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]


def _is_storable(moment: datetime) -> datetime:
    # In UTC it may lie outside the years that there are.
    if not 1970 < moment.year < 9000:
        raise ValueError("must be in a year from 1971 to 8999")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_is_storable)]

Item = TypeVar("Item")


class Body(BaseModel):
    """A request body; an unknown field is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")


class Row(BaseModel):
    """An answer read off a database row."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[Item]):
    """Part of a listing; pass `next` as `after` for the rest, null when this was the end."""

    data: list[Item]
    next: str | None


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every error's body, in OpenAI's shape."""

    error: ErrorDetail


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class NewTenant(Body):
    name: Name


class TenantStatus(Body):
    status: Literal["active", "suspended"]


class TenantOut(Row):
    id: uuid.UUID
    name: str
    status: str
    created_at: datetime


class NewKey(Body):
    name: Name = "default"
    project_id: uuid.UUID | None = Field(None, description="null: the default project")
    scopes: list[Scope] | None = Field(
        None,
        min_length=1,
        max_length=len(ALL_SCOPES),
        description="`inference` asks engines; on the REST API `read` is as much as a viewer,"
        " `manage` as a developer, `own` as an owner; null: all that the caller may",
    )
    expires_at: Moment | None = Field(None, description="null: it lives until it is revoked")


class KeyOut(Row):
    """A key. `last_used_at` is right within a minute or so; `replaced_by_id` is the key that takes
    over from a rotated one. `line_id` is the first of the keys that took over from each other, this
    one if it was not made by rotation: budgets are the line's."""

    id: uuid.UUID
    tenant_id: uuid.UUID
    project_id: uuid.UUID
    public_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    replaced_by_id: uuid.UUID | None
    line_id: uuid.UUID
    revoked_at: datetime | None


class IssuedKey(KeyOut):
    """A new key. `key` is the secret token: shown here and never again."""

    key: str


class NewTopUp(Body):
    amount_usd: Usd = Field(examples=["10.00"])
    reason: Name = "top-up"
