"""Brings a PostgreSQL database to this version's schema. Called by `flashplane migrate` and tests.

The history lives in `migrations/`; every change of a table is one revision there. Processes never
migrate on their own: whoever starts them does it once, before.
"""

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
_LOCK_KEY = 0x666C6173  # any number, the same in every version: "flas"
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


def upgrade(database_url: str) -> None:
    """Migrate to the newest revision: one transaction, one process at a time.

    Raises:
        StartupError: the server is too old, or the schema is newer than this program.
    """
    engine = open_engine(database_url, pool_size=1)
    try:
        with engine.begin() as connection:
            _check_server(connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            _check_not_newer(connection, ScriptDirectory.from_config(config))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


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
