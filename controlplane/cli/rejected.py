"""`flashplane rejected`: usage that could not be settled and waits for a person."""

from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_rows
from controlplane.settings import Settings

COLUMNS = (
    *("request_id", "rejected", "tenant_id", "model", "hit_tokens", "miss_tokens"),
    *("output_tokens", "started_at"),
)

Request = Annotated[str, typer.Argument(help="The request's id; it is in the list.")]

rejected = typer.Typer(
    cls=Commands,
    help="List, retry, write off usage that could not be settled.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(rejected, name="rejected")


@rejected.command("list")
def list_rejected(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List requests that the database contradicts, newest first, each with the reason.

    Their holds stay and the books are not exact until each is retried or written off.
    """
    with AdminClient(Settings()) as client:
        print_rows(client.pages("/usage/rejected", {}, limit), COLUMNS, as_json=as_json)


@rejected.command("retry")
def retry(request_id: Request) -> None:
    """Settle a request again, once the cause is gone; else it comes back with its reason."""
    with AdminClient(Settings()) as client:
        client.call("POST", f"/usage/rejected/{request_id}/retry")
    typer.echo(f"request {request_id} is in the queue again")


@rejected.command("write-off")
def write_off(
    request_id: Request,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log for ever.")],
) -> None:
    """Give a request up for ever: nobody is charged and its hold is given back.

    For example: flashplane rejected write-off ID --reason "gateway of a test cluster"
    """
    with AdminClient(Settings()) as client:
        client.call("POST", f"/usage/rejected/{request_id}/write-off", json={"reason": reason})
    typer.echo(f"request {request_id} is written off")
