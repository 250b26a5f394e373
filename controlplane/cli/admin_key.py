"""`flashplane admin-key`: the first way in. Every other command needs a key that exists.

Run beside the database, in a cluster inside the API's pod; `flashplane up` makes its own.
"""

from typing import Annotated, Literal

import typer

from controlplane.cli.services import complete_settings

Role = Literal["admin", "support", "billing"]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("admin-key")(admin_key)


def admin_key(
    name: Annotated[str, typer.Argument(help="Whose it is, for whoever looks later.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = "admin",
) -> None:
    """Make a key for the platform's staff, straight in the database, and print it this once."""
    from controlplane.db import open_engine, session_factory
    from controlplane.tenants import keys

    settings = complete_settings()
    engine = open_engine(settings.database_url, pool_size=1)
    try:
        with session_factory(engine).begin() as session:
            pepper = settings.key_pepper.get_secret_value().encode()
            _, token = keys.issue_admin(session, pepper, name=name, role=role)
    finally:
        engine.dispose()
    typer.echo(token)
