"""Who gets in, and who is put out."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import asyncssh
import pytest

from controlplane.ssh_gateway.failures import MOST_FAILURES

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
    for _ in range(MOST_FAILURES):
        await refusal(connect, other_key, "dev")
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
