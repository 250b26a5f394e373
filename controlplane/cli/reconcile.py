"""`flashplane reconcile`: whether bills, ledger and engines tell of the same tokens."""

from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

FINDING_COLUMNS = ("request_id", "kind", "replica", "billed", "witnessed", "explanation")


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reconcile)


def reconcile(
    findings: Annotated[
        bool, typer.Option("--findings", help="List the requests that differ instead.")
    ] = False,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Compare what gateways billed, the ledger charged and engines wrote down, for the last day.

    Engines may be ahead of the bill where a client left: nobody pays for what was not sent. Any
    other difference is a finding. The exit code is 1 while one is not explained.
    """
    with AdminClient(Settings()) as client:
        if findings:
            rows = client.pages("/reconcile/findings", {}, limit)
            print_rows(rows, FINDING_COLUMNS, as_json=as_json)
            return
        report = client.call("GET", "/reconcile")
    print_one(report, as_json=as_json)
    if not report["ok"]:
        raise typer.Exit(1)
