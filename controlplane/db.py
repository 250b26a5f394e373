"""PostgreSQL: the declarative base, the engine and identifiers.

Every table lives with its owner (`tenants.models`, `accounts.models`, ...) on this `Base`. Sessions
are synchronous everywhere; the gateway runs them on one small thread pool.
"""

import os
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

import psycopg
from psycopg import sql
from sqlalchemy import Engine, MetaData, create_engine, exc
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

# A server behind a broken network says nothing: what TCP makes of it, else 15 minutes and more, is
# half a minute. Nothing to Unix sockets.
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # ms
}
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


# A session keeps the plans of its foreign keys and statements. One that was made while a table was
# small reads all of it for every row or batch, until an ANALYZE comes; these plans stay right.
_BY_INDEX = tuple(f"-c enable_{plan}=off" for plan in ("seqscan", "bitmapscan", "mergejoin"))


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


def open_engine(database_url: str, *, pool_size: int = 5, by_index: bool = False) -> Engine:
    """Return an engine on psycopg 3.

    Args:
        database_url: `postgresql://...` as PostgreSQL's own tools write it; the driver is ours.
        pool_size: most connections kept.
        by_index: for work that finds a few rows each time, such as holds and settlement; see
            `_BY_INDEX`.
    """
    url = database_url.replace("postgres://", "postgresql://", 1)
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    options = " ".join(("-c timezone=UTC", *(_BY_INDEX if by_index else ())))
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text must not quote what a caller sent
        connect_args={"connect_timeout": 5, "options": options} | KEEPALIVE,
    )


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Return the factory of sessions; use it as `with factory.begin() as session:`."""
    return sessionmaker(engine, expire_on_commit=False)


def copy_in(
    session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """COPY rows into a table in the session's transaction: twice as fast as any INSERT of them.

    Raises:
        DBAPIError: one of its kinds, as a statement of SQLAlchemy's own would.
    """
    session.flush()
    connection = session.connection()
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise exc.DBAPIError.instance(
            f"COPY {table}",
            None,
            error,
            psycopg.Error,
            hide_parameters=True,
            dialect=connection.dialect,
        ) from error


def first_uuid7(moment: datetime) -> uuid.UUID:
    """Return the smallest UUIDv7 of a moment's millisecond: a border between older and newer."""
    milliseconds = int(moment.timestamp() * 1000)
    return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | 0x2 << 62)


def uuid7() -> uuid.UUID:
    """Return a time-ordered UUID (RFC 9562 version 7): 48 bits of ms, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
