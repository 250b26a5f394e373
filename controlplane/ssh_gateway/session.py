"""One SSH session: a shell, a command or sftp, between a client and a container.

Called by asyncssh, which gives it the client's side; `remote` is the other. Data waits on both
sides while the other is slow. Nothing of it is logged.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import asyncssh

from controlplane.ssh_gateway.remote import STDERR, Remote, RemoteError, RemoteProcess, Terminal

SHELL = ["/bin/sh", "-c", 'exec "$(command -v bash || echo /bin/sh)" -l']
SFTP = [
    "/bin/sh",
    "-c",
    "for it in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server"
    " /usr/libexec/sftp-server /usr/lib/ssh/sftp-server; do"
    ' [ -x "$it" ] && exec "$it"; done;'
    " echo 'This image has no sftp-server: install openssh-sftp-server in it,"
    ' or copy with `ssh ... "cat >file" <file`.\' >&2; exit 127',
]
FAILED = 255
QUEUED_CHUNKS = 16


@dataclass
class Counts:
    """What went through a session, in bytes."""

    received_bytes: int = 0
    sent_bytes: int = 0
    exit_status: int | None = None


class Session(asyncssh.SSHServerSession[bytes]):
    """A session.

    Args:
        pod: (namespace, name) of the pod to enter.
        ended: called with what went through, if anything was begun.
        left: called once nothing of it is left here, whether anything was begun or not.
    """

    def __init__(
        self,
        remote: Remote,
        pod: tuple[str, str],
        ended: Callable[[str, Counts], None],
        left: Callable[[], None],
    ) -> None:
        self._remote = remote
        self._pod = pod
        self._ended = ended
        self._left = left
        self._kind = "none"
        self._argv: list[str] = []
        self._terminal: Terminal | None = None
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._counts = Counts()
        self._process: RemoteProcess | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._terminal = Terminal(term_type, term_size[0], term_size[1])
        return True

    def shell_requested(self) -> bool:
        self._kind, self._argv = "shell", SHELL
        return True

    def exec_requested(self, command: str) -> bool:
        self._kind, self._argv = "exec", ["/bin/sh", "-c", command]
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        if subsystem != "sftp":
            return False
        self._kind, self._argv = "sftp", SFTP
        return True

    def session_started(self) -> None:
        self._task = asyncio.create_task(self._run())

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._counts.received_bytes += len(data)
        self._input.put_nowait(data)
        if self._input.qsize() >= QUEUED_CHUNKS:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._input.put_nowait(None)
        return True

    def break_received(self, msec: int) -> bool:
        self._input.put_nowait(b"\x03")
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._process is not None:
            self._resizing = asyncio.create_task(self._process.resize(width, height))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if self._task is None:
            self._left()
            return
        self._task.add_done_callback(lambda _: self._left())
        self._task.cancel()

    async def _run(self) -> None:
        status = FAILED
        try:
            self._process = await self._remote.start(*self._pod, self._argv, self._terminal)
            status = await self._pump(self._process)
        except RemoteError as error:
            self._channel.write_stderr(f"{error}\r\n".encode())
        finally:
            self._counts.exit_status = status
            self._ended(self._kind, self._counts)
            if self._process is not None:
                with contextlib.suppress(RemoteError):
                    await self._process.close()
            if not self._channel.is_closing():
                self._channel.exit(status)

    async def _pump(self, process: RemoteProcess) -> int:
        feeding = asyncio.create_task(self._feed(process))
        try:
            async for stream, data in process.output():
                await self._writable.wait()
                self._counts.sent_bytes += len(data)
                if stream == STDERR:
                    self._channel.write_stderr(data)
                else:
                    self._channel.write(data)
            return await process.exit_status()
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, RemoteError):
                await feeding

    async def _feed(self, process: RemoteProcess) -> None:
        while (data := await self._input.get()) is not None:
            await process.write(data)
            if self._input.qsize() < QUEUED_CHUNKS:
                self._channel.resume_reading()
        await process.write_eof()
