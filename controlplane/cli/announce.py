"""`flashplane announce`: tells gateways of an engine that neither `up` nor an operator looks after.

For containers on one machine: it asks the engine's health and repeats that it is there.
"""

import signal
import threading
from typing import Annotated

import typer

from controlplane.errors import StartupError
from controlplane.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(rich_help_panel="Processes")(announce)


def announce(
    url: Annotated[str, typer.Argument(help="Where gateways reach it, such as http://worker:8000")],
) -> None:
    """Tell gateways of an engine for as long as it answers its health check. Until SIGTERM."""
    from controlplane.crd.base import Path
    from controlplane.supervisor.heartbeat import Heartbeat

    settings = Settings()
    if not settings.redis_url:
        raise StartupError("Set REDIS_URL to the store that the gateways look into.")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    heartbeat = Heartbeat(settings.redis_url, url.rstrip("/"), path=Path.SERVERLESS)
    heartbeat.start()
    stopping.wait()
    heartbeat.stop()
