"""What the REST API takes, and gives of projects, people, admin keys and models."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from controlplane.api.schemas import Body, Moment, Name, Row

MemberRole = Literal["owner", "developer", "viewer"]
StaffRole = Literal["admin", "support", "billing"]
Email = Annotated[
    str,
    StringConstraints(
        max_length=254,
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$",
    ),
]
# As model names are in requests and addresses.
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$")]


class NewProject(Body):
    name: Name


class ProjectChange(Body):
    """What is to be different; at least one of the two."""

    name: Name | None = None
    archived: bool | None = Field(None, description="an archived project's keys open nothing")


class ProjectOut(Row):
    id: uuid.UUID
    tenant_id: uuid.UUID
    name: str
    created_at: datetime
    archived_at: datetime | None


class NewMember(Body):
    email: Email = Field(description="whoever first logs in with this verified address is bound")
    role: MemberRole


class MemberChange(Body):
    role: MemberRole


class NewStaff(Body):
    email: Email = Field(description="whoever first logs in with this verified address is bound")
    role: StaffRole


class StaffChange(Body):
    role: StaffRole


class MemberOut(Row):
    """A member; while `person_id` is null, an invitation."""

    id: uuid.UUID
    tenant_id: uuid.UUID | None
    email: str
    role: str
    person_id: uuid.UUID | None
    created_at: datetime


class Rotation(Body):
    overlap_seconds: int = Field(
        86_400, ge=0, le=30 * 86_400, description="how long the old key lives on beside the new one"
    )


class NewAdminKey(Body):
    name: Name
    role: StaffRole
    expires_at: Moment | None = Field(None, description="null: it lives until it is revoked")


class AdminKeyOut(Row):
    id: uuid.UUID
    public_id: str
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class IssuedAdminKey(AdminKeyOut):
    """A new key. `key` is the secret token: shown here and never again."""

    key: str


class ModelIn(Body):
    """What is told of a model, or, with `alias_of`, of another name of a model."""

    description: str = Field("", max_length=2000, pattern=r"^[^\x00]*$")
    visible: bool = Field(True, description="one that is not answers as if it did not exist")
    alias_of: ModelName | None = Field(
        None, description="the model that serves and bills what is asked of this name"
    )


class ModelOut(Row):
    name: str
    description: str
    visible: bool
    alias_of: str | None
    created_at: datetime


class MembershipOut(BaseModel):
    tenant_id: uuid.UUID | None
    role: str


class Me(BaseModel):
    """Who calls. A key tells its tenant and role; a person all memberships, the platform's own
    being the one without a tenant."""

    actor: str
    name: str | None
    email: str | None
    memberships: list[MembershipOut]


class StaffMe(BaseModel):
    actor: str
    name: str
    role: str
