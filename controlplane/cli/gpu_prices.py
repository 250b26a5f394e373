"""`flashplane gpu-prices`: what an hour of a GPU configuration costs. Calls of the admin API."""

from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

COLUMNS = ("configuration", "kind", "usd_per_hour", "effective_from")

gpu_prices = typer.Typer(
    cls=Commands, help="List and publish prices of GPU time.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(gpu_prices, name="gpu-prices")


@gpu_prices.command("list")
def list_gpu_prices(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List price versions, oldest first."""
    with AdminClient(Settings()) as client:
        print_rows(client.pages("/gpu-prices", {}, limit), COLUMNS, as_json=as_json)


@gpu_prices.command("publish")
def publish_gpu_price(
    configuration: str,
    usd_per_hour: Annotated[str, typer.Argument(help="Of one replica, all its GPUs.")],
    spot: Annotated[bool, typer.Option("--spot", help="The rate of spot nodes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a price from now on; replicas that serve keep the one they began with.

    For example: flashplane gpu-prices publish h200-x4 19.36
    """
    body = {
        "configuration": configuration,
        "usd_per_hour": usd_per_hour,
        "kind": "spot" if spot else "on_demand",
    }
    with AdminClient(Settings()) as client:
        print_one(client.call("POST", "/gpu-prices", json=body), as_json=as_json)
