"""How revisions write the rules of the books: each a view in the schema `books`.

A view selects what breaks its rule, as (subject, found, expected): whose, what is written, what it
should be. Its comment is the rule in words. The check of the books reads every view that is there,
so a revision that adds a rule calls `add` and nothing else; one that changes a table which rules
read does so inside `set_aside`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

_READERS = sa.text("""
    SELECT v.relname, obj_description(v.oid), pg_get_viewdef(v.oid)
    FROM pg_class v
    WHERE v.relnamespace = 'books'::regnamespace AND v.relkind = 'v' AND EXISTS (
        SELECT FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        JOIN pg_class t ON t.oid = d.refobjid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
            AND r.ev_class = v.oid AND t.relname = ANY(:tables)
            AND t.relnamespace = 'public'::regnamespace
    )
    ORDER BY v.relname
""")


def add(name: str, told: str, query: str) -> None:
    """Add a rule, or say an old one anew.

    Args:
        name: of the view, what it lists: `wrong_balances`.
        told: the rule as a sentence without a full stop, naming the invariant that it proves.
        query: selects three columns: text, numeric, numeric.
    """
    op.execute(f"DROP VIEW IF EXISTS books.{name}")
    # As the driver wants it: a rule may hold a colon, and a percent sign doubled.
    run = op.get_bind().exec_driver_sql
    run(f"CREATE VIEW books.{name} (subject, found, expected) AS {query}".replace("%", "%%"))
    words = told.replace("'", "''").replace("%", "%%")
    run(f"COMMENT ON VIEW books.{name} IS '{words}'")


def drop(*names: str) -> None:
    """Take rules away."""
    for name in names:
        op.execute(f"DROP VIEW books.{name}")


@contextmanager
def set_aside(*tables: str) -> Iterator[None]:
    """Take away the rules that read `tables` while they are changed, then say them as before."""
    found = op.get_bind().execute(_READERS, {"tables": list(tables)}).all()
    drop(*(name for name, _, _ in found))
    yield
    for name, told, query in found:
        add(name, told, query)
