"""Tables of tenants, projects and keys."""

import uuid
from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base, uuid7


class Tenant(Base):
    """A customer: owns projects, keys, an account, usage."""

    __tablename__ = "tenants"
    __table_args__ = (CheckConstraint("status IN ('active', 'suspended')", name="status"),)

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


class AdminKey(Base):
    """A platform admin's key; opens the admin API and nothing else."""

    __tablename__ = "admin_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid7)
    public_id: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[bytes]
    # Which pepper `digest` was made with, see `peppers`; None: by a version that did not tell.
    pepper_mark: Mapped[str | None]
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
