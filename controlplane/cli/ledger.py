"""`flashplane ledger`: lists entries, exports them for other programs, hashes them. Calls of the
admin API."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.admin import LEDGER_COLUMNS, OneTenant, of_tenant
from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

ledger = typer.Typer(cls=Commands, invoke_without_command=True)


class Format(enum.StrEnum):
    """What the ledger is exported as."""

    BEANCOUNT = "beancount"
    CSV = "csv"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(ledger, name="ledger")


@ledger.callback()
def list_ledger(
    context: typer.Context, tenant: OneTenant = "", limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List ledger entries, each with its explanation, newest first; or export them all."""
    if context.invoked_subcommand is not None:
        return
    with AdminClient(Settings()) as client:
        rows = client.pages("/ledger", of_tenant(client, tenant), limit)
        print_rows(rows, LEDGER_COLUMNS, as_json=as_json)


@ledger.command("hash")
def hash_ledger(as_json: AsJson = False) -> None:
    """Tell one number for all that the ledger says, to hold databases against each other.

    Note it down with each dump: after `flashplane restore` it says whether all is back.
    """
    with AdminClient(Settings()) as client:
        print_one(client.call("GET", "/ledger/hash"), as_json=as_json)


@ledger.command("export")
def export_ledger(
    form: Annotated[
        Format,
        typer.Option("--format", help="beancount checks itself; csv has an entry a line."),
    ] = Format.BEANCOUNT,
    tenant: OneTenant = "",
    output: Annotated[
        Path | None, typer.Option(help="The file to write; left out: print it.")
    ] = None,
) -> None:
    """Write the ledger, as it is at one moment, for an accountant's program.

    For example: flashplane ledger export --output books.beancount && bean-check books.beancount
    """
    with AdminClient(Settings()) as client:
        query = of_tenant(client, tenant) | {"format": form.value}
        pieces = client.stream("/ledger/export", query)
        if output is None:
            typer.get_binary_stream("stdout").writelines(pieces)
            return
        # Half an export is none: the file is there when it is whole.
        part = output.with_name(f"{output.name}.part")
        with part.open("wb") as file:
            file.writelines(pieces)
        part.replace(output)
