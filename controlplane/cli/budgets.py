"""`flashplane budgets`: the most that a tenant, project or key may spend. Asks the admin API."""

from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.settings import Settings

COLUMNS = ("id", "scope", "period", "limit_usd", "spent_usd", "held_usd", "renews_at")

Tenant = Annotated[str, typer.Argument(help="A tenant's name or id.")]

budgets = typer.Typer(cls=Commands, help="Set, list, remove budgets.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(budgets, name="budgets")


@budgets.command("list")
def list_budgets(tenant: Tenant, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List a tenant's budgets with what is spent and held of each."""
    with AdminClient(Settings()) as client:
        found = client.pages(f"/tenants/{client.tenant_id(tenant)}/budgets", {}, limit)
        print_rows(found, COLUMNS, as_json=as_json)


@budgets.command("set")
def set_budget(
    tenant: Tenant,
    limit_usd: Annotated[str, typer.Argument(help="The most that a period may cost: 100 or 0.50.")],
    period: Annotated[str, typer.Option(help="day, month or total; of UTC.")] = "month",
    project: Annotated[str, typer.Option(help="Only this project's spending: its id.")] = "",
    key: Annotated[
        str,
        typer.Option(help="Only the spending of this API key and those it is rotated to: its id."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Set a budget, or change the limit of the one that there is for this scope and period.

    Requests that a budget cannot cover are refused with 402 `budget_exceeded`.

    For example: flashplane budgets set acme 100 --period month
    """
    with AdminClient(Settings()) as client:
        # A budget names the first of the keys that took over from each other.
        line = client.call("GET", f"/keys/{key}")["line_id"] if key else None
        scope = {"project_id": project or None, "api_key_id": line}
        path = f"/tenants/{client.tenant_id(tenant)}/budgets"
        wanted = {"period": period, **scope}
        for budget in client.pages(path, {}, limit=10**9):
            if all(budget[name] == value for name, value in wanted.items()):
                change = {"limit_usd": limit_usd}
                answer = client.call("PATCH", f"{path}/{budget['id']}", json=change)
                break
        else:
            answer = client.call("POST", path, json={"limit_usd": limit_usd, **wanted})
    print_one(answer, as_json=as_json)


@budgets.command("remove")
def remove_budget(tenant: Tenant, budget_id: str) -> None:
    """Take a budget away; its id is in the list."""
    with AdminClient(Settings()) as client:
        client.call("DELETE", f"/tenants/{client.tenant_id(tenant)}/budgets/{budget_id}")
    typer.echo(f"budget {budget_id} is removed")
