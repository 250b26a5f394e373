"""`flashplane up | down | status`: the whole product on this machine."""

import json
import time
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from controlplane.cli.client import AdminClient
from controlplane.errors import StartupError
from controlplane.settings import Settings
from controlplane.supervisor.announcement import Announcement, read_announcement, summary
from controlplane.supervisor.built_in import BuiltInModel
from controlplane.supervisor.layout import Layout

if TYPE_CHECKING:
    from controlplane.registry.replicas import Replica
    from controlplane.supervisor.background import ProcessStatus

HOST = "127.0.0.1"
PORT = 8000
ADMIN_PORT = 8001
WORKER_PORT = 8002
BOOKS_EXACT = "exact"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("up")(start)
    app.command("down")(stop)
    app.command("status")(status)


def start(
    host: Annotated[str, typer.Option(help="Address customers and admins reach.")] = HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Customers' port.")] = PORT,
    admin_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Admin API's port.")
    ] = ADMIN_PORT,
    worker_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Engine's port, always on loopback.")
    ] = WORKER_PORT,
    model: Annotated[
        BuiltInModel, typer.Option(help="demo: small and trained; tiny: random, its text is noise.")
    ] = BuiltInModel.DEMO,
    max_model_len: Annotated[
        int | None,
        typer.Option(min=256, help="Longest request, in tokens; else as fits the model."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove all data of an earlier start, unasked.")
    ] = False,
    detached: Annotated[bool, typer.Option("--detached", hidden=True)] = False,
) -> None:
    """Start everything and wait until a real completion was served and billed.

    Embeds PostgreSQL and Valkey, unless DATABASE_URL or REDIS_URL name yours. The first start makes
    a demo tenant with a key and a balance. Scripts read `.flashplane/up.json`. With --detach a
    product that runs already is proven to work and told of again.
    """
    from controlplane.supervisor import background
    from controlplane.supervisor.services import Addresses

    settings = Settings()
    addresses = Addresses(host, port, admin_port, worker_port)
    if detach:
        arguments = [
            *("up", "--detached", "--host", host, "--port", str(port)),
            *("--admin-port", str(admin_port), "--worker-port", str(worker_port)),
            *("--model", model),
            *(("--max-model-len", str(max_model_len)) if max_model_len else ()),
            *(("--fresh",) if fresh else ()),
        ]
        layout = Layout(settings.data_dir.absolute())
        running = background.join_running(layout, addresses, model, fresh=fresh)
        _tell_ready(running or background.start_detached(layout, arguments, typer.echo))
        return
    from controlplane.supervisor import up
    from controlplane.supervisor.progress import Progress

    up.run(
        settings,
        up.Options(addresses, model, max_model_len, fresh),
        Progress(Console()),
        # A background supervisor's output is a log, and no key goes into a log.
        _tell_nothing if detached else _tell_ready,
    )


def stop() -> None:
    """Stop what `flashplane up` started, in order; nothing is lost."""
    from controlplane.supervisor import background

    layout = Layout(Settings().data_dir.absolute())
    if background.stop_running(layout, typer.echo):
        typer.echo("Stopped.")
    else:
        typer.echo("Nothing was running.")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what runs, which replicas serve, and whether the books are exact.

    The exit code is 0 when everything runs and the books are exact, else 1.
    """
    from controlplane.supervisor import background

    settings = Settings()
    layout = Layout(settings.data_dir.absolute())
    processes = background.process_statuses(layout)
    if not processes:
        raise StartupError(f"Flashplane is not running in {layout.root}: run `flashplane up`.")
    announcement = read_announcement(layout.up_file)
    replicas = _replicas(announcement.redis_url) if announcement else []
    books = _books(settings) if announcement else "unknown, the product is not ready"
    if as_json:
        typer.echo(_status_json(processes, replicas, books))
    else:
        _print_status(processes, announcement, replicas, books)
    all_run = all(process.state == "running" for process in processes)
    if not (all_run and replicas and books == BOOKS_EXACT):
        raise typer.Exit(1)


def _tell_ready(announcement: Announcement) -> None:
    from controlplane.supervisor.services import MODEL

    typer.echo(summary(announcement, MODEL))


def _tell_nothing(announcement: Announcement) -> None:
    pass


def _replicas(redis_url: str) -> "list[Replica]":
    import redis

    from controlplane.registry.replicas import read
    from controlplane.store import open_store

    with open_store(redis_url) as store:
        try:
            return read(store, time.time())
        except redis.RedisError:
            return []


def _books(settings: Settings) -> str:
    try:
        with AdminClient(settings) as client:
            report = client.call("GET", "/books")
    except StartupError as error:
        return f"unknown: {error}"
    return BOOKS_EXACT if not report["violations"] else "; ".join(map(str, report["violations"]))


def _status_json(processes: "list[ProcessStatus]", replicas: "list[Replica]", books: str) -> str:
    import msgspec

    return json.dumps(
        {
            "processes": [asdict(process) for process in processes],
            "replicas": [msgspec.to_builtins(replica) for replica in replicas],
            "books": books,
        },
        indent=2,
    )


def _print_status(
    processes: "list[ProcessStatus]",
    announcement: Announcement | None,
    replicas: "list[Replica]",
    books: str,
) -> None:
    urls = {}
    if announcement is not None:
        urls = {
            "gateway": announcement.base_url,
            "api": announcement.admin_url,
            "worker": announcement.worker_url,
        }
    table = Table("process", "pid", "state", "uptime", "url")
    for process in processes:
        up_for = ""
        if process.uptime_seconds is not None:
            up_for = str(timedelta(seconds=int(process.uptime_seconds)))
        url = urls.get(process.name, "")
        table.add_row(process.name, str(process.pid), process.state, up_for, url)
    Console().print(table)
    for process in processes:
        if process.state == "frozen":
            typer.echo(f"{process.name} is frozen by a signal: `kill -CONT {process.pid}` wakes it")
    for replica in replicas:
        typer.echo(f"replica {replica.id}: {replica.model} ({replica.path}) at {replica.url}")
    if not replicas:
        typer.echo("no replica is ready")
    typer.echo(f"books: {books}")
