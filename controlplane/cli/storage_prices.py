"""`flashplane storage-prices`: what a GiB of volume costs an hour. Calls of the admin API."""

from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

COLUMNS = ("storage_class", "usd_per_gib_hour", "effective_from")

storage_prices = typer.Typer(
    cls=Commands, help="List and publish prices of volumes.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(storage_prices, name="storage-prices")


@storage_prices.command("list")
def list_storage_prices(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List price versions, oldest first."""
    with AdminClient(Settings()) as client:
        print_rows(client.pages("/storage-prices", {}, limit), COLUMNS, as_json=as_json)


@storage_prices.command("publish")
def publish_storage_price(
    usd_per_gib_hour: Annotated[str, typer.Argument(help="Of one GiB, running or stopped.")],
    storage_class: Annotated[
        str, typer.Option(help="A StorageClass that orders name; *: every other.")
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """Publish a price from now on; volumes that exist keep the one they began with.

    For example, 0.10 USD per GiB and month: flashplane storage-prices publish 0.000137
    """
    body = {"usd_per_gib_hour": usd_per_gib_hour, "storage_class": storage_class}
    with AdminClient(Settings()) as client:
        print_one(client.call("POST", "/storage-prices", json=body), as_json=as_json)
