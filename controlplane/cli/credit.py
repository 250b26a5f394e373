"""`flashplane credit`: grants, refunds, credit notes, waivers, adjustments, terms. Calls of the
admin API."""

import uuid
from typing import Annotated, Any

import typer

from controlplane.cli.admin import Tenant
from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, print_one
from controlplane.settings import Settings

credit = typer.Typer(
    cls=Commands,
    help="Give tenants money, give it back, and set how they pay.",
    no_args_is_help=True,
)

Reason = Annotated[str, typer.Option(help="Kept in the ledger for ever; the tenant sees it.")]
Amount = Annotated[str, typer.Argument(help="USD, such as 25 or 0.50.")]
Part = Annotated[str, typer.Option("--amount", help="USD of it; left out: all that is left.")]
Charge = Annotated[
    uuid.UUID, typer.Argument(help="The transaction; see `flashplane ledger --json`.")
]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(credit, name="credit")


@credit.command("grant")
def grant(tenant: Tenant, amount_usd: Amount, reason: Reason, as_json: AsJson = False) -> None:
    """Give a tenant money, which is spent before what it paid.

    For example: flashplane credit grant acme 5 --reason "welcome"
    """
    _post(tenant, "grants", {"amount_usd": amount_usd, "reason": reason}, as_json=as_json)


@credit.command("refund")
def refund(
    tenant: Tenant, transaction: Charge, reason: Reason, amount: Part = "", as_json: AsJson = False
) -> None:
    """Return what a transaction took wrongly: never more than it took."""
    _post(tenant, "refunds", _back(transaction, amount, reason), as_json=as_json)


@credit.command("waive")
def waive(
    tenant: Tenant, transaction: Charge, reason: Reason, amount: Part = "", as_json: AsJson = False
) -> None:
    """Let a tenant off what a transaction took rightly."""
    _post(tenant, "waivers", _back(transaction, amount, reason), as_json=as_json)


@credit.command("note")
def note(
    tenant: Tenant,
    reason: Reason,
    amount: Part = "",
    transaction: Annotated[
        uuid.UUID | None, typer.Option(help="What it is for; left out: a gesture.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Credit a tenant for a transaction, or as a gesture.

    For example: flashplane credit note acme --amount 2 --reason "slow on 3 May"
    """
    _post(tenant, "credit-notes", _back(transaction, amount, reason), as_json=as_json)


@credit.command("adjust")
def adjust(
    tenant: Tenant,
    amount: Annotated[str, typer.Option(help="USD; below zero it deducts: --amount=-0.10")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Put a balance right, up or down."""
    _post(tenant, "adjustments", {"amount_usd": amount, "reason": reason}, as_json=as_json)


@credit.command("terms")
def set_terms(
    tenant: Tenant,
    limit: Annotated[str, typer.Option(help="USD of credit; 0: the tenant pays before.")],
    as_json: AsJson = False,
) -> None:
    """Let a tenant pay afterwards up to a limit, or before again.

    For example: flashplane credit terms acme --limit 500
    """
    with AdminClient(Settings()) as client:
        prepaid = not limit.strip("0.")
        body = {"terms": "prepaid" if prepaid else "postpaid", "credit_limit_usd": limit}
        path = f"/tenants/{client.tenant_id(tenant)}/credit-terms"
        print_one(client.call("PUT", path, json=body), as_json=as_json)


def _back(transaction: uuid.UUID | None, amount: str, reason: str) -> dict[str, str | None]:
    return {
        "transaction_id": str(transaction) if transaction else None,
        "amount_usd": amount or None,
        "reason": reason,
    }


def _post(tenant: str, what: str, body: dict[str, Any], *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        answer = client.call(
            "POST",
            f"/tenants/{client.tenant_id(tenant)}/{what}",
            json=body,
            headers={"idempotency-key": str(uuid.uuid4())},
        )
    if not as_json:
        money = answer.pop("balance")
        answer |= {"available_usd": money["available_usd"]}
    print_one(answer, as_json=as_json)
