"""Servers of the user's own, named by DATABASE_URL and REDIS_URL: told at once when they cannot do.

Called by `start` before anything is started.
"""

import redis
from sqlalchemy.exc import ArgumentError

from controlplane.db import open_engine
from controlplane.store import open_store
from controlplane.supervisor.errors import SupervisorError


def check_database_url(url: str) -> None:
    """Make sure that it is a PostgreSQL URL; whether it answers shows when it is migrated.

    Raises:
        SupervisorError: it is none. The message does not quote it, it may hold a password.
    """
    try:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError
        open_engine(url).dispose()
    except (ArgumentError, ValueError):
        raise SupervisorError(
            "DATABASE_URL is not a URL such as postgresql://user:password@host:5432/database: "
            "correct it, or unset it to use an embedded PostgreSQL."
        ) from None


def check_redis_url(url: str) -> None:
    """Make sure that the store answers.

    Raises:
        SupervisorError: it does not, or the URL is none.
    """
    try:
        with open_store(url) as store:
            store.ping()
    except ValueError:
        raise SupervisorError(
            "REDIS_URL is not a URL such as redis://host:6379/0 or unix:///path: correct it, or "
            "unset it to use an embedded Valkey."
        ) from None
    except redis.RedisError as error:
        raise SupervisorError(
            f"The store of REDIS_URL does not answer ({error}): start it, or unset REDIS_URL to "
            "use an embedded one."
        ) from None
