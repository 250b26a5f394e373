"""All commands of `flashplane`, put together. Run by `main`."""

from importlib.metadata import version
from typing import Annotated

import typer

from controlplane.cli import (
    admin,
    admin_key,
    announce,
    audit,
    budgets,
    configuration,
    credit,
    deployments,
    doctor,
    gpu_prices,
    identity,
    invoices,
    journals,
    ledger,
    prices,
    product,
    reconcile,
    rejected,
    restore,
    scrub,
    services,
    storage_prices,
)
from controlplane.cli.failure import Commands

EXAMPLES = """\
Flashplane sells DeepSeek-V4-Flash inference from your own machines: gateway, exact money ledger,
REST API and engine.

The whole product on this machine, small:

\b
    flashplane up                  start everything and wait until a completion was served
    flashplane up --detach         the same, in the background
    flashplane status              what runs, and whether the books are exact
    flashplane down                stop it

Customers and money, with the running product:

\b
    flashplane tenants create acme
    flashplane keys create acme --name laptop
    flashplane members invite ada@example.com owner --tenant acme
    flashplane top-up acme 25
    flashplane budgets set acme 100 --period month
    flashplane credit grant acme 5 --reason welcome
    flashplane usage --tenant acme
    flashplane usage --tenant acme --by model --days 30
    flashplane ledger --tenant acme --json
    flashplane ledger export --format beancount
    flashplane books
    flashplane ledger hash         one number for all that the ledger says
    flashplane reconcile           bills, ledger and engines' journals, held against each other
    flashplane rejected list       usage that no machine may decide on
    flashplane audit verify         whether anybody touched the record of who did what

Prices, by the hour of the day if need be:

\b
    flashplane prices publish deepseek-v4-flash --hit 0.0028 --miss 0.14 --output 0.28
    flashplane prices preview deepseek-v4-flash --hit 0.003 --miss 0.15 --output 0.60
    flashplane prices import deepseek-v4-flash
    flashplane prices show deepseek-v4-flash

GPUs for sale, as pools, dedicated deployments and bare machines:

\b
    flashplane gpu-prices publish h200-x4 19.36
    flashplane deployments create bot --tenant acme --configuration h200-x4 --dry-run
    flashplane deployments list

Something is wrong? `flashplane doctor` names it and the fix. Every setting: `flashplane config`.
"""

app = typer.Typer(
    cls=Commands,
    help=EXAMPLES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flashplane {version('flashplane')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    pass


product.add_to(app)
services.add_to(app)
journals.add_to(app)
restore.add_to(app)
announce.add_to(app)
configuration.add_to(app)
doctor.add_to(app)
admin.add_to(app)
ledger.add_to(app)
credit.add_to(app)
prices.add_to(app)
admin_key.add_to(app)
identity.add_to(app)
audit.add_to(app)
deployments.add_to(app)
gpu_prices.add_to(app)
budgets.add_to(app)
storage_prices.add_to(app)
invoices.add_to(app)
scrub.add_to(app)
reconcile.add_to(app)
rejected.add_to(app)
