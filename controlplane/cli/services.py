"""`flashplane gateway | api | jobs | beat | operator | migrate`: a process each, as in a cluster.

What a command alone needs is imported by that command: the others stay quick.
"""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controlplane import log
from controlplane.errors import StartupError
from controlplane.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(rich_help_panel="Processes")(gateway)
    app.command(rich_help_panel="Processes")(api)
    app.command(rich_help_panel="Processes")(jobs)
    app.command(rich_help_panel="Processes")(beat)
    app.command(rich_help_panel="Processes")(operator)
    app.command("ssh-gateway", rich_help_panel="Processes")(ssh_gateway)
    app.command(hidden=True)(local_operator)
    app.command(rich_help_panel="Processes")(migrate)


def gateway(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    metrics_port: Annotated[
        int,
        typer.Option(
            help="Second port for /health, /ready and /metrics, which other machines then cannot "
            "see on the first; 0: none.",
            min=0,
            max=65535,
        ),
    ] = 0,
) -> None:
    """Serve customers: chat completions, models, and the tenant's part of the REST API."""
    from controlplane.api.app import create_tenant_app
    from controlplane.gateway.app import create_app

    settings = complete_settings()
    log.configure("gateway", log_dir=settings.log_dir, level=settings.log_level)
    app = create_app(
        settings,
        fallback=create_tenant_app(settings),
        observed_at=(host, metrics_port) if metrics_port else None,
    )
    _serve(app, settings, host, port)


def api(host: Host = "127.0.0.1", port: Port = 8001) -> None:
    """Serve the platform admin's REST API."""
    from controlplane.api.app import create_admin_app

    settings = complete_settings()
    log.configure("api", log_dir=settings.log_dir, level=settings.log_level)
    _serve(create_admin_app(settings), settings, host, port)


def jobs() -> None:
    """Run what is due: settle usage, release what dead gateways held."""
    from controlplane.supervisor.services import jobs_command

    complete_settings()
    command = jobs_command()
    os.execv(command[0], command)


def beat(
    schedule: Annotated[
        Path, typer.Option(help="File in which the clock keeps its last ticks.")
    ] = Path(".flashplane/beat/schedule"),
) -> None:
    """Tick: tell `flashplane jobs` what is due. Run exactly one."""
    from controlplane.supervisor.services import beat_command

    complete_settings()
    command = beat_command(schedule)
    os.execv(command[0], command)


def operator() -> None:
    """Make deployments, endpoints and replicas true on a Kubernetes cluster and keep them so.

    Run two: one leads, the other takes over. Needs neither the database nor Redis.
    """
    from controlplane.operator import main

    raise typer.Exit(main.run(Settings()))


def ssh_gateway() -> None:
    """Let customers into their bare endpoints by SSH, with the keys their endpoints name."""
    from controlplane.ssh_gateway import main

    main.run(Settings())


def local_operator(pods: Path, model: Path) -> None:
    """Keep a cluster on this machine, with the operator on it. Run by `flashplane up`."""
    from controlplane.supervisor import local_operator

    local_operator.run(complete_settings(), folder=pods, model=model)


def migrate(
    back_to: Annotated[
        str,
        typer.Option(help="Go back to this revision, such as 0003; what newer ones keep is lost."),
    ] = "",
) -> None:
    """Bring the database of DATABASE_URL to this version's schema.

    Each revision commits by itself and nothing is locked for long, so a running product goes on. An
    upgrade that was interrupted goes on where it was. A ledger that says what the earlier revision
    cannot say is not taken back.
    """
    from controlplane import schema

    settings = Settings()
    if not settings.database_url:
        raise StartupError("Set DATABASE_URL to the database to migrate.")
    if back_to:
        schema.downgrade(settings.database_url, back_to)
        typer.echo(f"The schema is that of revision {back_to}.")
        return
    schema.upgrade(settings.database_url)
    typer.echo("The schema is current.")


def complete_settings() -> Settings:
    """Return settings that name a database, a store and a pepper.

    Raises:
        StartupError: one of them is missing.
    """
    settings = Settings()
    needed = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "FLASHPLANE_KEY_PEPPER": settings.key_pepper.get_secret_value(),
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise StartupError(
            f"Set {', '.join(missing)}; `flashplane up` does it by itself for the whole product."
        )
    return settings


def _serve(app: "ASGIApp", settings: Settings, host: str, port: int) -> None:
    import uvicorn

    from controlplane.gateway.protocol import BoundedHeadProtocol

    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=BoundedHeadProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, math.ceil(settings.shutdown_grace_seconds)),
    )
