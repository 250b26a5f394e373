"""All that a database tells, to look for what must not be in it."""

from sqlalchemy import text
from support.shop import Shop

_TABLES = text("""
    SELECT format('SELECT coalesce(string_agg(t::text, '' ''), '''') FROM %s t', oid::regclass)
    FROM pg_class WHERE relkind IN ('r', 'p')
        AND relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace)
""")


def everything(shop: Shop) -> str:
    """Every row of every table, as text."""
    with shop.sessions.begin() as session:
        queries = session.scalars(_TABLES).all()
        return "\n".join(session.execute(text(query)).scalar_one() for query in queries)
