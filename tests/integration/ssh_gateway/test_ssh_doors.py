"""Who gets in, and who is put out."""

import asyncio
import base64
import json
import logging
import struct
import time
from collections.abc import Callable
from typing import Any

import asyncssh
import pytest

from controlplane.ssh_gateway.failures import MOST_FAILURES
from controlplane.ssh_gateway.server import Limits

from .conftest import Gateway, endpoint, public

Connect = Callable[..., Any]


async def refusal(connect: Connect, key: asyncssh.SSHKey, user: str) -> str:
    with pytest.raises(asyncssh.PermissionDenied) as refused:
        await connect(key, user)
    return str(refused.value).replace(user, "USER")


async def test_an_unknown_endpoint_and_a_wrong_key_look_the_same(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, other_key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    gateway.directory.update(endpoint("halted", sshKeys=[], state="Stopped"))
    wrong = await refusal(connect, other_key, "dev")
    assert wrong == await refusal(connect, other_key, "nobody")
    assert wrong == await refusal(connect, key, "halted")
    assert wrong == await refusal(connect, key, "dev.fp-b")


async def test_the_key_tells_which_of_two_namesakes_is_meant(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, other_key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    theirs = [{"name": "k", "publicKey": public(other_key)}]
    gateway.directory.update(endpoint("dev", "fp-b", sshKeys=theirs))
    gateway.remote.absent = frozenset()
    for mine in (key, other_key):
        async with connect(mine) as connection:
            assert (await connection.run("echo in")).stdout == "in\n"
    async with connect(other_key, "dev.fp-b") as connection:
        assert (await connection.run("echo in")).stdout == "in\n"


async def test_a_deleted_key_ends_its_live_session_within_a_second(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, other_key: asyncssh.SSHKey
) -> None:
    """One platform let a deleted key log in for as long as its instance lived."""
    both = [
        {"name": "laptop", "publicKey": public(key)},
        {"name": "desk", "publicKey": public(other_key)},
    ]
    gateway.open(key, sshKeys=both)
    async with connect(other_key) as kept, connect(key) as revoked:
        running = await revoked.create_process("cat")
        gateway.open(key, sshKeys=both[1:])
        await asyncio.wait_for(revoked.wait_closed(), 1)
        assert running.exit_status != 0
        assert (await kept.run("echo still here")).stdout == "still here\n"
    await refusal(connect, key, "dev")


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"state": "Stopped"}},
        {"status": {"phase": "Reclaiming"}},
        {"status": {"replica": "dev-1"}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"uid": "another"}},
    ],
    ids=["stopped", "reclaimed", "another lease", "deleted", "made anew"],
)
async def test_sessions_end_with_their_lease(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, change: dict[str, dict[str, str]]
) -> None:
    body = gateway.open(key)
    async with connect(key) as connection:
        for part, fields in change.items():
            body[part] = {**body[part], **fields}
        gateway.directory.update(body)
        await asyncio.wait_for(connection.wait_closed(), 1)


async def test_an_endpoint_that_is_gone_ends_its_sessions(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    body = gateway.open(key)
    async with connect(key) as connection:
        gateway.directory.remove(body)
        await asyncio.wait_for(connection.wait_closed(), 1)


async def test_passwords_are_not_even_asked_for(gateway: Gateway, key: asyncssh.SSHKey) -> None:
    gateway.open(key)
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1",
            gateway.port,
            username="dev",
            password="dev",
            known_hosts=None,
            client_keys=None,
            agent_path=None,
            config=None,
        )


async def test_who_fails_too_often_has_to_wait(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, other_key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    for _ in range(MOST_FAILURES - 1):
        await refusal(connect, other_key, "dev")
    with pytest.raises((asyncssh.Error, OSError)):
        await connect(other_key)
    with pytest.raises((asyncssh.Error, OSError)):
        await connect(key)


async def test_the_log_tells_who_was_where_and_never_what_was_said(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.open(key)
    with caplog.at_level(logging.INFO, "controlplane.ssh_gateway.sessions"):
        async with connect(key) as connection:
            await connection.run("echo whispered-secret")
        async with asyncio.timeout(5):
            while caplog.records[-1].message != "ssh_closed":
                await asyncio.sleep(0.01)
    told = [vars(record) for record in caplog.records]
    assert [it["message"] for it in told] == ["ssh_opened", "ssh_session", "ssh_closed"]
    session = told[1]
    assert (session["endpoint"], session["key"], session["kind"]) == ("dev", "laptop", "exec")
    assert session["sent_bytes"] == len("whispered-secret\n")
    assert session["fingerprint"] == key.get_fingerprint()
    assert "whispered" not in json.dumps(told, default=str)


def crippled_rsa_key() -> str:
    """Return a line that looks like a key but whose numbers are none: its exponent is even."""
    parts = (b"ssh-rsa", (2).to_bytes(3, "big"), b"\x00" + b"\xff" * 128)
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    "line",
    [
        crippled_rsa_key(),
        "-----BEGIN OPE)SSH PRIVATE KEY-----\nAAAA\n",
        "ssh-rsa",
        "ssh-rsa =====",
        "schlüssel",
    ],
    ids=["even exponent", "pattern in a header", "no blob", "no base64", "not ASCII"],
)
async def test_a_key_that_is_none_opens_nothing_and_stops_no_revocation(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, line: str
) -> None:
    gateway.open(key)
    odd = [{"name": "odd", "publicKey": line}]
    other = endpoint("dev", "fp-b", sshKeys=odd)
    async with connect(key) as connection:
        # The owner takes the key away and puts one there that no parser takes.
        gateway.directory.replace([other, endpoint("dev", sshKeys=odd)])
        await asyncio.wait_for(connection.wait_closed(), 1)
    await refusal(connect, key, "dev")


async def test_who_does_not_log_in_leaves_room_for_others(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    silent = [
        await asyncio.open_connection("127.0.0.1", gateway.port)
        for _ in range(Limits().waiting_per_peer)
    ]
    for reader, _ in silent:
        await asyncio.wait_for(reader.readuntil(b"\n"), 10)
    with pytest.raises((asyncssh.Error, OSError)):
        await connect(key)
    for _, writer in silent:
        writer.close()
    async with asyncio.timeout(5):
        while gateway.house.waiting:
            await asyncio.sleep(0.01)
    async with connect(key) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"


async def test_keys_cannot_be_tried_without_end_on_one_connection(
    gateway: Gateway, connect: Connect, key: asyncssh.SSHKey, other_key: asyncssh.SSHKey
) -> None:
    gateway.open(key)
    for _ in range(MOST_FAILURES - 1):
        gateway.house.failures.add("127.0.0.1", time.monotonic())
    with pytest.raises((asyncssh.Error, OSError)):
        await connect([other_key, key])
