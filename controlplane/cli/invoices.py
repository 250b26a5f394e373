"""`flashplane invoices`: what tenants are billed, and what they paid. Calls of the admin API."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

COLUMNS = ("id", "number", "month", "state", "standing", "total_usd", "due_usd", "paid_usd")
LINE_COLUMNS = (
    "section",
    "month",
    "project",
    "api_key",
    "model",
    "meter",
    "quantity",
    "amount_usd",
)

_Tenant = Annotated[str, typer.Option("--tenant", help="Name or id of a tenant.")]
_Id = Annotated[str, typer.Argument(help="As `flashplane invoices list` shows it.")]

invoices = typer.Typer(
    cls=Commands,
    help="List, show and download invoices, and book payments.\n\nA month (UTC) is open while it"
    " runs, collects late usage for a day, and is then final: it has a number and never changes.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(invoices, name="invoices")


@invoices.command("list")
def list_invoices(
    tenant: _Tenant = "",
    state: Annotated[str, typer.Option(help="open, collecting or final.")] = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List invoices, newest first."""
    with AdminClient(Settings()) as client:
        params: dict[str, Any] = {"tenant_id": client.tenant_id(tenant)} if tenant else {}
        params |= {"state": state} if state else {}
        print_rows(client.pages("/invoices", params, limit), COLUMNS, as_json=as_json)


@invoices.command("show")
def show_invoice(invoice: _Id, as_json: AsJson = False) -> None:
    """Show an invoice's sums and lines."""
    with AdminClient(Settings()) as client:
        _print(client.call("GET", f"/invoices/{invoice}"), as_json=as_json)


@invoices.command("preview")
def preview_invoice(
    tenant: Annotated[str, typer.Argument(help="Name or id.")], as_json: AsJson = False
) -> None:
    """Show what a tenant's running month would be billed now."""
    with AdminClient(Settings()) as client:
        place = f"/tenants/{client.tenant_id(tenant)}/invoice-preview"
        _print(client.call("GET", place), as_json=as_json)


@invoices.command("download")
def download_invoice(
    invoice: _Id,
    file: Annotated[Path, typer.Argument(help="Its ending, .pdf, .html or .csv, says what.")],
) -> None:
    """Write a final invoice to a file.

    For example: flashplane invoices download 0198c2de-... acme-october.pdf
    """
    with AdminClient(Settings()) as client:
        file.write_bytes(client.download(f"/invoices/{invoice}{file.suffix.lower()}"))
    typer.echo(f"wrote {file}")


@invoices.command("pay")
def pay_invoice(
    invoice: _Id,
    amount_usd: Annotated[
        str | None, typer.Argument(help="What came in, tax included; none: all that is due.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Where it came from.")] = "payment",
    as_json: AsJson = False,
) -> None:
    """Book a payment. What is more than the amount due stays on the tenant's balance.

    For example: flashplane invoices pay 0198c2de-... 119.00 --reason "transfer 4711"
    """
    body = {"amount_usd": amount_usd, "reason": reason}
    with AdminClient(Settings()) as client:
        print_one(client.call("POST", f"/invoices/{invoice}/payments", json=body), as_json=as_json)


def _print(invoice: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_one(invoice, as_json=True)
        return
    sums = {name: value for name, value in invoice.items() if name not in ("lines", "payments")}
    print_one(sums, as_json=False)
    print_rows(invoice["lines"], LINE_COLUMNS, as_json=False)
