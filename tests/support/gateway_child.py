"""The gateway of a test's world in a process of its own, that can be killed or lied to."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from support import gateway as gateway_script
from support.gateway import World
from support.ports import free_port

COMMAND = (sys.executable, str(gateway_script.__file__))


def environment(world: World) -> dict[str, str]:
    """The environment that gives a process the world's settings."""
    return {
        **os.environ,
        "DATABASE_URL": world.settings.database_url,
        "REDIS_URL": world.settings.redis_url,
        "FLASHPLANE_KEY_PEPPER": world.settings.key_pepper.get_secret_value(),
        "FLASHPLANE_JOURNAL_DIR": str(world.settings.journal_dir),
        "FLASHPLANE_SHUTDOWN_GRACE_SECONDS": str(world.settings.shutdown_grace_seconds),
        "PYTHONPATH": str(Path(gateway_script.__file__).parents[1]),
    }


@asynccontextmanager
async def gateway_process(
    world: World, *under: str, **more: str
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The world's gateway in a process of its own; killed when left.

    Args:
        under: a program that runs it, and that program's arguments.
        more: environment of it beyond the world's settings.
    """
    port = free_port()
    process = subprocess.Popen(
        [*under, *COMMAND, str(port)], env=environment(world) | more, start_new_session=True
    )
    world.url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(20), httpx.AsyncClient() as http:
            while True:
                assert process.poll() is None
                try:
                    if (await http.get(f"{world.url}/ready")).status_code == 200:
                        break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the program above it is not all there is
        process.wait()
