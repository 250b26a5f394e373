"""Enters a "container" that is this machine's shell: the SSH gateway's other end in tests."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from controlplane.ssh_gateway.remote import STDERR, STDOUT, RemoteError, Terminal


class LocalProcess:
    """A process here, on pipes or on a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int | None) -> None:
        self._process = process
        self._terminal = terminal

    async def write(self, data: bytes) -> None:
        if self._terminal is not None:
            os.write(self._terminal, data)
            return
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def write_eof(self) -> None:
        if self._terminal is None:
            assert self._process.stdin is not None
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        assert self._terminal is not None
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(maxsize=4)
        if self._terminal is not None:
            readers = [asyncio.create_task(self._read_terminal(queue))]
        else:
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            readers = [
                asyncio.create_task(_read(self._process.stdout, STDOUT, queue)),
                asyncio.create_task(_read(self._process.stderr, STDERR, queue)),
            ]
        left = len(readers)
        while left:
            stream, data = await queue.get()
            if data:
                yield stream, data
            else:
                left -= 1

    async def exit_status(self) -> int:
        return await self._process.wait()

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    async def _read_terminal(self, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        assert self._terminal is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.run_in_executor(None, os.read, self._terminal, 65536)
            except OSError:  # what Linux says when the last process on it has ended
                data = b""
            await queue.put((STDOUT, data))
            if not data:
                return


async def _read(
    reader: asyncio.StreamReader, stream: int, queue: asyncio.Queue[tuple[int, bytes]]
) -> None:
    while True:
        data = await reader.read(65536)
        await queue.put((stream, data))
        if not data:
            return


@dataclass
class LocalRemote:
    """Every pod is `folder`; a pod named in `absent` does not run."""

    folder: Path
    absent: frozenset[str] = frozenset()

    async def start(
        self, namespace: str, pod: str, argv: list[str], terminal: Terminal | None
    ) -> LocalProcess:
        if pod in self.absent:
            raise RemoteError("The endpoint's container does not run right now.")
        if terminal is None:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *argv, cwd=self.folder, stdin=pipe, stdout=pipe, stderr=pipe
            )
            return LocalProcess(process, None)
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": terminal.kind},
        )
        os.close(theirs)
        started = LocalProcess(process, ours)
        await started.resize(terminal.columns, terminal.rows)
        return started

    async def address(self, namespace: str, pod: str) -> str:
        if pod in self.absent:
            raise RemoteError("The endpoint's container does not run right now.")
        return "127.0.0.1"
