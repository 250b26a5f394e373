"""`flashplane audit`: who did what, and whether anybody has touched the record of it since."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.client import AdminClient
from controlplane.cli.failure import Commands
from controlplane.cli.output import AsJson, Limit, print_one, print_rows
from controlplane.errors import StartupError
from controlplane.settings import Settings
from controlplane.supervisor.announcement import read_announcement
from controlplane.supervisor.layout import Layout

COLUMNS = ("id", "at", "actor", "action", "subject", "tenant_id", "seq")

audit = typer.Typer(cls=Commands, help="List and verify who did what.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(audit, name="audit")


@audit.command("list")
def list_events(
    tenant: Annotated[str, typer.Option(help="Only this tenant's: name or id.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this one did.")] = "",
    action: Annotated[str, typer.Option(help="Only this action, such as create_tenant.")] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List who did what, newest first; --json shows the details and hashes too."""
    with AdminClient(Settings()) as client:
        wanted = {
            "tenant_id": client.tenant_id(tenant) if tenant else "",
            "actor": actor,
            "action": action,
        }
        params = {name: value for name, value in wanted.items() if value}
        print_rows(client.pages("/audit", params, limit), COLUMNS, as_json=as_json)


@audit.command("verify")
def verify(
    anchor_file: Annotated[
        Path | None,
        typer.Option("--anchors", help="Signed anchors; best a copy kept elsewhere."),
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="The signer to trust, in hex; without, the one of the first line."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every event of every chain, straight in the database, against the anchors.

    Tells which event was changed, removed, moved or forged, and where a chain's end was cut off.
    The exit code is 1 when anything is wrong. Without anchors a cut end cannot be seen, nor a
    chain that was rewritten as a whole.
    """
    from controlplane.audit import anchors
    from controlplane.audit.verification import verify as verify_chains
    from controlplane.db import open_engine, session_factory

    settings = Settings()
    layout = Layout(settings.data_dir.absolute())
    file = anchor_file or settings.audit_anchor_file or layout.audit_anchors
    believed = anchor_file is not None or file.exists()
    read = anchors.read(file, public_key=public_key) if believed else None
    engine = open_engine(_database_url(settings, layout), pool_size=1)
    try:
        with session_factory(engine).begin() as session:
            verdict = verify_chains(session, read.vouched if read else {})
    finally:
        engine.dispose()
    findings = [*(read.findings if read else ()), *verdict.findings]
    told = {
        "ok": not findings,
        "chains": verdict.chains,
        "events": verdict.events,
        "anchors": str(file) if read else "none: a cut end cannot be seen",
        "signed_by": read.public_key if read else "",
    }
    print_one(told | ({"findings": findings} if as_json else {}), as_json=as_json)
    for finding in () if as_json else findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(1)


def _database_url(settings: Settings, layout: Layout) -> str:
    running = read_announcement(layout.up_file)
    url = settings.database_url or (running.database_url if running else "")
    if not url:
        raise StartupError("No database is known: run `flashplane up`, or set DATABASE_URL.")
    return url
