"""A dump of a database, as quick as the server copies files."""

import psycopg


def dump(url: str, name: str) -> str:
    """Copy a database that nobody is connected to; return the copy's URL."""
    server, _, source = url.rpartition("/")
    source, _, options = source.partition("?")
    copy = "?".join(filter(None, [f"{server}/{name}", options]))
    admin = "?".join(filter(None, [f"{server}/postgres", options]))
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {source}")
    return copy
