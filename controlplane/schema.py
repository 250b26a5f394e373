"""Brings a PostgreSQL database to this version's schema. Called by `flashplane migrate` and tests.

The history lives in `migrations/`; every change of a table is one revision there. Processes never
migrate on their own: whoever starts them does it once, before.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from controlplane.accounts import models as accounts_models
from controlplane.audit import models as audit_models
from controlplane.billing.invoices import models as invoice_models
from controlplane.billing.reconcile import models as reconcile_models
from controlplane.db import Base, open_engine
from controlplane.deployments import commitments as commitments_models
from controlplane.deployments import models as deployments_models
from controlplane.errors import StartupError
from controlplane.pricing import models as pricing_models
from controlplane.tenants import models as tenants_models
from controlplane.usage import models as usage_models
from controlplane.webhooks import models as webhooks_models

OLDEST_SERVER = 16
_MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
_LOCK = {"key": 0x666C6173}  # any number, the same in every version: "flas"
_LOCK_POLL_SECONDS = 0.05
_OWNERS = (
    tenants_models,
    pricing_models,
    accounts_models,
    usage_models,
    deployments_models,
    commitments_models,
    reconcile_models,
    audit_models,
    webhooks_models,
    invoice_models,
)


def metadata() -> MetaData:
    """Return the tables of all owners."""
    assert all(owner.Base is Base for owner in _OWNERS)
    return Base.metadata


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate up to a revision, one process at a time.

    Each revision is one transaction, so that no lock lasts longer than the step that needs it. What
    fails leaves the revision before it; upgrading again goes on from there.

    Raises:
        StartupError: the server is too old, or the schema is newer than this program.
    """
    with _alone(database_url) as config:
        command.upgrade(config, revision)


def downgrade(database_url: str, revision: str) -> None:
    """Go back to an earlier revision; "base" drops everything. What only newer ones know is lost.

    Raises:
        StartupError: as for `upgrade`.
        sqlalchemy.exc.IntegrityError: the ledger holds what the earlier revision cannot say.
    """
    with _alone(database_url) as config:
        command.downgrade(config, revision)


def check(database_url: str) -> bool:
    """Return whether a database has exactly this version's schema. Changes nothing.

    Raises:
        StartupError: the server is too old, or the schema is newer than this program.
        sqlalchemy.exc.OperationalError: it cannot be reached.
    """
    engine = open_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            script = ScriptDirectory(str(_MIGRATIONS))
            _check_not_newer(connection, script)
            heads = MigrationContext.configure(connection).get_current_heads()
            return set(heads) == set(script.get_heads())
    finally:
        engine.dispose()


@contextmanager
def _alone(database_url: str) -> Iterator[Config]:
    """Give a configuration to migrate with, while no other process does."""
    engine = open_engine(database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            _check_server(connection)
            # Ours until the connection ends. Waiting inside PostgreSQL would keep a snapshot, which
            # an index that is built concurrently waits for in turn.
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), _LOCK):
                connection.rollback()
                time.sleep(_LOCK_POLL_SECONDS)
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            _check_not_newer(connection, ScriptDirectory.from_config(config))
            connection.rollback()
            config.attributes["connection"] = connection
            yield config
    finally:
        engine.dispose()


def _check_server(connection: Connection) -> None:
    version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
    if version // 10_000 < OLDEST_SERVER:
        raise StartupError(
            f"The database server is PostgreSQL {version // 10_000}; Flashplane needs"
            f" {OLDEST_SERVER} or newer: upgrade the server or point DATABASE_URL at another."
        )


def _check_not_newer(connection: Connection, script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise StartupError(
            f"The database has schema revision {', '.join(sorted(unknown))}, which this version of"
            " Flashplane does not know: install the version that made it, or a newer one."
        )
