"""`flashplane tenants | keys | top-up | balance | usage | books`: the admin API.

Each command is one call; names of tenants stand for their ids.
"""

import uuid
from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.cli.usage_sums import MOST_DAYS, SUM_COLUMNS, By, summed
from controlplane.errors import StartupError
from controlplane.settings import Settings

TENANT_COLUMNS = ("name", "id", "status", "created_at")
KEY_COLUMNS = (
    *("name", "id", "public_id", "scopes", "created_at", "expires_at", "last_used_at"),
    "revoked_at",
)
USAGE_COLUMNS = (
    *("request_id", "model", "hit_tokens", "miss_tokens", "output_tokens", "finish_reason"),
    "charge_usd",
)
LEDGER_COLUMNS = ("created_at", "account", "amount_usd", "explanation")

Tenant = Annotated[str, typer.Argument(help="A tenant's name or id.")]
OneTenant = Annotated[str, typer.Option("--tenant", help="Only this tenant's: name or id.")]

tenants = typer.Typer(
    cls=Commands, help="Make, list, suspend, delete tenants.", no_args_is_help=True
)
keys = typer.Typer(cls=Commands, help="Make, list, revoke API keys.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(tenants, name="tenants")
    app.add_typer(keys, name="keys")
    app.command("top-up")(top_up)
    app.command()(balance)
    app.command()(usage)
    app.command()(books)


@tenants.command("create")
def create_tenant(name: str, as_json: AsJson = False) -> None:
    """Make a tenant with an empty account."""
    with AdminClient(Settings()) as client:
        print_one(client.call("POST", "/tenants", json={"name": name}), as_json=as_json)


@tenants.command("list")
def list_tenants(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List tenants, oldest first."""
    with AdminClient(Settings()) as client:
        print_rows(client.pages("/tenants", {}, limit), TENANT_COLUMNS, as_json=as_json)


@tenants.command("suspend")
def suspend_tenant(tenant: Tenant, as_json: AsJson = False) -> None:
    """Make a tenant's keys open nothing, until it is activated again."""
    _set_status(tenant, "suspended", as_json=as_json)


@tenants.command("activate")
def activate_tenant(tenant: Tenant, as_json: AsJson = False) -> None:
    """Let a suspended tenant in again."""
    _set_status(tenant, "active", as_json=as_json)


@tenants.command("delete")
def delete_tenant(
    tenant: Tenant,
    waive_balance: Annotated[
        bool,
        typer.Option(
            "--waive-balance", help="Give up what is left on its account, money or debt, for good."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a tenant for ever: names, people, addresses, webhooks. The books stay, told by its id.

    Refused while something of it runs or is on no final invoice yet: the answer says what.
    """
    with AdminClient(Settings()) as client:
        tenant_id = client.tenant_id(tenant)
        if not yes:
            typer.confirm(f"Erase the tenant {tenant} ({tenant_id}) for ever?", abort=True)
        query = {"waive_balance": waive_balance}
        print_one(client.call("DELETE", f"/tenants/{tenant_id}", params=query), as_json=as_json)


@keys.command("create")
def create_key(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="inference, read, manage or own, several times; none: all of them."),
    ] = None,
    project_id: Annotated[
        str | None, typer.Option(help="See `flashplane projects list`; none: the default one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its token is shown now and never again."""
    body = {"name": name, "scopes": scope or None, "project_id": project_id}
    with AdminClient(Settings()) as client:
        path = f"/tenants/{client.tenant_id(tenant)}/keys"
        print_one(client.call("POST", path, json=body), as_json=as_json)


@keys.command("list")
def list_keys(tenant: Tenant, as_json: AsJson = False) -> None:
    """List a tenant's keys, revoked ones too."""
    with AdminClient(Settings()) as client:
        page = client.call("GET", f"/tenants/{client.tenant_id(tenant)}/keys")
        print_rows(page["data"], KEY_COLUMNS, as_json=as_json)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[uuid.UUID, typer.Argument(help="See `flashplane keys list`.")],
    as_json: AsJson = False,
) -> None:
    """Make a key useless for ever, within a second."""
    with AdminClient(Settings()) as client:
        print_one(client.call("DELETE", f"/keys/{key_id}"), as_json=as_json)


@keys.command("peppers")
def tell_peppers(as_json: AsJson = False) -> None:
    """Tell how many live keys still need the pepper before.

    To rotate: set FLASHPLANE_KEY_PEPPER to a new secret and FLASHPLANE_KEY_PEPPER_PREVIOUS to the
    old one, restart, and take the old one away once `other` and `unknown` are 0. A key is hashed
    anew when it is used; prompts that engines have cached are cached anew.
    """
    with AdminClient(Settings()) as client:
        print_one(client.call("GET", "/peppers"), as_json=as_json)


def top_up(
    tenant: Tenant,
    amount_usd: Annotated[str, typer.Argument(help="Such as 25 or 0.50.")],
    reason: Annotated[str, typer.Option(help="Kept in the ledger.")] = "top-up",
    as_json: AsJson = False,
) -> None:
    """Credit a tenant's account."""
    with AdminClient(Settings()) as client:
        answer = client.call(
            "POST",
            f"/tenants/{client.tenant_id(tenant)}/top-ups",
            json={"amount_usd": amount_usd, "reason": reason},
            headers={"idempotency-key": str(uuid.uuid4())},
        )
    if as_json:
        print_one(answer, as_json=True)
    else:
        money = answer.pop("balance")
        print_one(answer | {"available_usd": money["available_usd"]}, as_json=False)


def balance(tenant: Tenant, as_json: AsJson = False) -> None:
    """Tell what a tenant has, what running requests hold, and what is left."""
    with AdminClient(Settings()) as client:
        answer = client.call("GET", f"/tenants/{client.tenant_id(tenant)}/balance")
        print_one(answer, as_json=as_json)


def usage(
    tenant: OneTenant = "",
    by: Annotated[
        By | None, typer.Option(help="Add up a tenant's last days by this; none: list requests.")
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=MOST_DAYS, help="With --by: how many, today included.")
    ] = 7,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List settled requests with their tokens and charge, newest first; or add them up.

    For example: flashplane usage --tenant acme --by model --days 30
    """
    with AdminClient(Settings()) as client:
        if by is not None:
            if not tenant:
                raise StartupError("--by adds up one tenant's usage: name it with --tenant.")
            found = summed(client, client.tenant_id(tenant), by, days)
            print_rows(found, SUM_COLUMNS, as_json=as_json)
            return
        rows = client.pages("/usage", of_tenant(client, tenant), limit)
        print_rows(rows, USAGE_COLUMNS, as_json=as_json)


def books(as_json: AsJson = False) -> None:
    """Check that every sum in the books is exact. The exit code is 1 when one is not."""
    with AdminClient(Settings()) as client:
        report = client.call("GET", "/books")
    violations = report["violations"]
    shown = report if as_json else report | {"violations": "; ".join(violations) or "none"}
    print_one(shown, as_json=as_json)
    if violations:
        raise typer.Exit(1)


def _set_status(tenant: str, status: str, *, as_json: bool) -> None:
    with AdminClient(Settings()) as client:
        path = f"/tenants/{client.tenant_id(tenant)}"
        print_one(client.call("PATCH", path, json={"status": status}), as_json=as_json)


def of_tenant(client: AdminClient, tenant: str) -> dict[str, str]:
    """Return the query for one tenant given by name or id, or for all."""
    return {"tenant_id": client.tenant_id(tenant)} if tenant else {}
