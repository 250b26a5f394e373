"""Tables of tenants, projects, keys, people and models; and what requests were answered."""

import uuid
from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    String,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, uuid7


class Tenant(Base):
    """A customer: owns projects, keys, an account, usage. `deleted` is for ever."""

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str] = mapped_column(default="active")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Project(Base):
    """A part of a tenant with keys of its own; every tenant has one called `default`."""

    __tablename__ = "projects"
    # (tenant_id, id) is what keys refer to, so that a key's tenant is its project's tenant.
    __table_args__ = (UniqueConstraint("tenant_id", "name"), UniqueConstraint("tenant_id", "id"))

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    archived_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ApiKey(Base):
    """A tenant's key, of one project for ever. Only the HMAC of the secret is kept."""

    __tablename__ = "api_keys"
    # (tenant_id, id) is what holds and usage refer to, so that a row's tenant is its key's tenant.
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(["tenant_id", "project_id"], [Project.tenant_id, Project.id]),
        CheckConstraint(
            "scopes <@ ARRAY['inference', 'read', 'manage', 'own']::varchar[]", name="scopes"
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"), index=True)
    project_id: Mapped[uuid.UUID] = mapped_column(index=True)
    public_id: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    # Which pepper `digest` was made with, see `peppers`; None: by a version that did not tell.
    pepper_mark: Mapped[str | None]
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # Within a minute; None: never.
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # The key that takes over from this one, which lives on for a while.
    replaced_by_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))
    # The first key of its line, whose budgets it shares; None: this one.
    first_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("api_keys.id"))

    @property
    def line_id(self) -> uuid.UUID:
        """The first key of its line, which budgets name."""
        return self.first_id or self.id


class AdminKey(Base):
    """A platform admin's key; opens the admin API and nothing else."""

    __tablename__ = "admin_keys"
    __table_args__ = (CheckConstraint("role IN ('admin', 'support', 'billing')", name="role"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    public_id: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    # Which pepper `digest` was made with, see `peppers`; None: by a version that did not tell.
    pepper_mark: Mapped[str | None]
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    role: Mapped[str] = mapped_column(default="admin")
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Person(Base):
    """Somebody whom the identity provider vouched for."""

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    issuer: Mapped[str]
    subject: Mapped[str]
    # As last told, and only if the provider had verified it.
    email: Mapped[str | None]
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Membership(Base):
    """What a person may do: for one tenant, or without a tenant for the platform.

    It begins as an invitation of an email address; the person who first proves to own it is bound.
    """

    __tablename__ = "memberships"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email", postgresql_nulls_not_distinct=True),
        UniqueConstraint("tenant_id", "person_id"),
        CheckConstraint(
            "CASE WHEN tenant_id IS NULL THEN role IN ('admin', 'support', 'billing')"
            " ELSE role IN ('owner', 'developer', 'viewer') END",
            name="role",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    tenant_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("tenants.id"))
    email: Mapped[str] = mapped_column(index=True)
    role: Mapped[str]
    person_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("people.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Model(Base):
    """What is told of a model; one with a price and no row here is visible under its own name."""

    __tablename__ = "models"
    __table_args__ = (CheckConstraint("alias_of <> name", name="alias_of_another"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str]
    visible: Mapped[bool]
    # The model that serves and bills what is asked of this name.
    alias_of: Mapped[str | None] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class GivenAnswer(Base):
    """The answer to a request that had an Idempotency-Key, kept for a day."""

    __tablename__ = "given_answers"

    # SHA-256 of who asked, what, and the key.
    id: Mapped[bytes] = mapped_column(primary_key=True)
    # SHA-256 of what was sent.
    fingerprint: Mapped[bytes]
    status: Mapped[int]
    # Encrypted: it may hold a key's token.
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), index=True
    )
