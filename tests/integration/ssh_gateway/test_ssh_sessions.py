"""What a customer does over SSH: shells, commands, files and ports."""

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from controlplane.ssh_gateway.server import Limits

from .conftest import Gateway

Connect = Callable[..., Any]


async def test_a_command_says_what_it_says_and_how_it_ended(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    async with connect(key) as connection:
        done = await connection.run("echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.exit_status) == ("out\n", "err\n", 7)


async def test_input_reaches_a_command_to_its_end(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    content = bytes(range(256)) * 40_000
    async with connect(key) as connection:
        done = await connection.run("sha256sum; wc -c >/dev/null", input=content, encoding=None)
        echoed = await connection.run("cat", input=content, encoding=None)
    assert done.exit_status == 0
    assert echoed.stdout == content


async def test_a_shell_has_a_terminal_of_the_clients_size(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    async with (
        connect(key) as connection,
        connection.create_process(term_type="xterm", term_size=(97, 31)) as shell,
    ):
        shell.stdin.write("stty size; tty\n")
        await asyncio.wait_for(shell.stdout.readuntil("31 97"), 10)
        await asyncio.wait_for(shell.stdout.readuntil("/dev/pts"), 10)
        shell.change_terminal_size(120, 40)
        shell.stdin.write("sleep 0.2; stty size\n")
        await asyncio.wait_for(shell.stdout.readuntil("40 120"), 10)
        shell.stdin.write("exit 3\n")
        await asyncio.wait_for(shell.wait(), 10)
        assert shell.exit_status == 3


async def test_a_port_of_the_endpoint_is_forwarded_and_no_other(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    inside = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = inside.sockets[0].getsockname()[1]
    gateway.open(key, ports=[{"name": "web", "port": port}])
    async with connect(key) as connection:
        reader, writer = await connection.open_connection("localhost", port)
        writer.write(b"hello")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b"HELLO"
        with pytest.raises(asyncssh.ChannelOpenError, match="not among"):
            await connection.open_connection("localhost", port + 1)
    inside.close()


async def test_a_container_that_does_not_run_is_told(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    gateway.remote.absent = frozenset({"dev-0-0"})
    async with connect(key) as connection:
        done = await connection.run("true")
    assert "does not run" in done.stderr
    assert done.exit_status == 255


@pytest.mark.skipif(
    shutil.which("ssh") is None, reason="no OpenSSH client: apt-get install openssh-client"
)
async def test_openssh_itself_gets_in(
    gateway: Gateway, key: asyncssh.SSHKey, tmp_path: Path
) -> None:
    gateway.open(key)
    identity = tmp_path / "id"
    identity.write_bytes(key.export_private_key())
    identity.chmod(0o600)
    known = tmp_path / "known"
    host_key = gateway.host_key.export_public_key().decode().strip()
    known.write_text(f"[127.0.0.1]:{gateway.port} {host_key}\n")
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
    where = ["-i", str(identity), "-p", str(gateway.port), "dev@127.0.0.1"]
    done = await asyncio.to_thread(
        subprocess.run,
        ["ssh", *options, *where, "cat; exit 5"],
        input=b"through",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.returncode) == (b"through", 5)


async def test_a_connection_has_so_many_channels_and_gets_them_back(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.house.limits = Limits(channels=2)
    gateway.open(key)
    async with connect(key) as connection:
        running = [await connection.create_process("cat") for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process("cat")
        for process in running:
            process.stdin.write_eof()
            await asyncio.wait_for(process.wait(), 10)
        for _ in range(5):
            assert (await connection.run("echo again")).stdout == "again\n"


async def test_a_forwarded_port_is_left_with_its_client_though_the_container_says_nothing(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, caplog: pytest.LogCaptureFixture
) -> None:
    heard = asyncio.Event()
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        heard.set()
        await over.wait()
        writer.close()

    inside = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = inside.sockets[0].getsockname()[1]
    gateway.open(key, ports=[{"name": "web", "port": port}])
    with caplog.at_level(logging.INFO, "controlplane.ssh_gateway.sessions"):
        connection = await connect(key)
        _, writer = await connection.open_connection("localhost", port)
        writer.write(b"hello")
        await asyncio.wait_for(heard.wait(), 5)
        connection.abort()
        async with asyncio.timeout(5):
            while "forward" not in [getattr(it, "kind", "") for it in caplog.records]:
                await asyncio.sleep(0.01)
    over.set()
    inside.close()
