"""The SSH gateway's process: `flashplane ssh-gateway`."""

import asyncio
import logging
import signal
from collections.abc import Awaitable

import aiohttp

from controlplane import log
from controlplane.errors import StartupError
from controlplane.kube import Kube
from controlplane.settings import Settings
from controlplane.ssh_gateway import host_key
from controlplane.ssh_gateway.directory import Directory
from controlplane.ssh_gateway.server import Gatehouse, listen
from controlplane.ssh_gateway.watching import Watcher
from controlplane.ssh_gateway.websocket import ApiAccess, WebSocketRemote

_log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; sessions that run are ended then.

    Raises:
        StartupError: no credentials, no usable host key, or the port is taken.
    """
    log.configure("ssh-gateway", log_dir=settings.log_dir, level=settings.log_level)
    key = host_key.load(settings.ssh_host_key)
    _log.info("ssh_host_key", extra={"fingerprint": key.get_fingerprint()})
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    kube = Kube(settings.kubeconfig)
    directory = Directory()
    watcher = Watcher(kube, directory, loop)
    watcher.start()
    access = ApiAccess(kube.url, kube.headers, kube.tls())
    try:
        async with aiohttp.ClientSession() as http:
            house = Gatehouse(directory, WebSocketRemote(access, http))
            # Nobody is refused for what has not been read yet.
            await _first(watcher.synced(), stopping.wait())
            if not stopping.is_set():
                await _listen(settings, house, stopping)
    finally:
        watcher.stop()
        kube.close()


async def _listen(settings: Settings, house: Gatehouse, stopping: asyncio.Event) -> None:
    key = host_key.load(settings.ssh_host_key)
    try:
        acceptor = await listen(house, key, host=settings.ssh_host, port=settings.ssh_port)
    except OSError as error:
        raise StartupError(
            f"{settings.ssh_host}:{settings.ssh_port} cannot be listened on ({error.strerror}):"
            " set FLASHPLANE_SSH_HOST and FLASHPLANE_SSH_PORT."
        ) from None
    _log.info("ssh_gateway_ready", extra={"port": acceptor.get_port()})
    await stopping.wait()
    acceptor.close()
    await acceptor.wait_closed()


async def _first(*events: Awaitable[object]) -> None:
    waiting = [asyncio.ensure_future(event) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
