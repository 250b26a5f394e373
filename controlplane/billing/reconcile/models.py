"""Tables of reconciliation: engines' journals, what they said, and where the bill differs."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.db import Base


class EngineJournal(Base):
    """How far the journal of one replica's engine has been read.

    Every attempt that ended between `since` and `read_until` is known here. `kept` is False for an
    engine that keeps no journal: its requests have no second witness.
    """

    __tablename__ = "engine_journals"

    replica: Mapped[str] = mapped_column(primary_key=True)
    after_us: Mapped[int] = mapped_column(BigInteger, default=0)
    kept: Mapped[bool]
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    read_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class WitnessedAttempt(Base):
    """One engine's word on one attempt at a request; tokens count from the answer's beginning.

    `resumed_tokens` of its output were made by another engine, which this one took over from.
    `compared_at` is set once the request's bill has been held against it.
    """

    __tablename__ = "witnessed_attempts"
    __table_args__ = (
        Index(
            "ix_witnessed_attempts_waiting",
            "ended_at",
            postgresql_where=text("compared_at IS NULL"),
        ),
    )

    replica: Mapped[str] = mapped_column(primary_key=True)
    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    request_id: Mapped[uuid.UUID] = mapped_column(index=True)
    model: Mapped[str]
    hit_tokens: Mapped[int] = mapped_column(BigInteger)
    miss_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    resumed_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    finish_reason: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    compared_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Finding(Base):
    """A request whose bill and whose engines differ, until a person has explained it."""

    __tablename__ = "reconciliation_findings"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('overbilled', 'underbilled', 'unbilled', 'unwitnessed')", name="kind"
        ),
        CheckConstraint("(explanation IS NULL) = (explained_by IS NULL)", name="explained"),
    )

    request_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    replica: Mapped[str | None]
    billed_hit_tokens: Mapped[int] = mapped_column(BigInteger)
    billed_miss_tokens: Mapped[int] = mapped_column(BigInteger)
    billed_output_tokens: Mapped[int] = mapped_column(BigInteger)
    billed_reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    witnessed_hit_tokens: Mapped[int] = mapped_column(BigInteger)
    witnessed_miss_tokens: Mapped[int] = mapped_column(BigInteger)
    witnessed_output_tokens: Mapped[int] = mapped_column(BigInteger)
    witnessed_reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    found_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), index=True
    )
    explanation: Mapped[str | None]
    explained_by: Mapped[str | None]
