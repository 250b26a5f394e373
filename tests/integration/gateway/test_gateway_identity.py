"""What the gateway makes of scopes, suspensions and other names of models."""

import asyncio
import time
import uuid
from typing import Any

import openai
import pytest
from sqlalchemy import select, update
from support.engine import Engine
from support.gateway import MODEL, PEPPER, World

from controlplane.gateway.auth import Authenticator
from controlplane.gateway.database import Database
from controlplane.tenants import keys, offered, projects, tenants
from controlplane.tenants.models import ApiKey

ALIAS = "deepseek-flash"


@pytest.fixture
def key(world: World) -> str:
    return world.tenant()


async def ask(world: World, key: str, model: str = MODEL) -> Any:
    async with world.client(key) as client:
        return await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=8
        )


def offer(world: World, name: str, **told: Any) -> None:
    row = {"description": "", "visible": True, "alias_of": None} | told
    with world.sessions.begin() as session:
        offered.put(session, name=name, **row)


async def names(world: World, key: str) -> dict[str, Any]:
    async with world.http(key) as client:
        found = (await client.get("/models")).json()["data"]
    return {it["id"]: it for it in found}


async def listed(world: World, key: str, name: str, *, there: bool = True) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while (name in (found := await names(world, key))) != there:
            await asyncio.sleep(0.02)
    return found


async def test_an_alias_is_listed_as_one_and_answers_as_its_model(
    world: World, engine: Engine, key: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        await ask(world, key, ALIAS)
    offer(world, ALIAS, alias_of=MODEL, description="another name")
    found = await listed(world, key, ALIAS)
    assert found[ALIAS]["alias_of"] == found[ALIAS]["root"] == MODEL
    assert found[ALIAS]["description"] == "another name"
    assert "alias_of" not in found[MODEL]
    answer = await ask(world, key, ALIAS)
    assert answer.model == MODEL
    (event,) = await world.settled()
    assert event.model == MODEL


async def test_a_hidden_model_is_not_there(world: World, key: str) -> None:
    offer(world, MODEL, visible=False)
    await listed(world, key, MODEL, there=False)
    with pytest.raises(openai.NotFoundError):
        await ask(world, key)
    async with world.http(key) as client:
        assert (await client.get(f"/models/{MODEL}")).status_code == 404


async def test_a_hidden_model_serves_under_its_other_name(world: World, key: str) -> None:
    offer(world, ALIAS, alias_of=MODEL)
    offer(world, MODEL, visible=False)
    await listed(world, key, MODEL, there=False)
    assert (await ask(world, key, ALIAS)).model == MODEL


async def test_a_key_without_the_scope_asks_no_engine(world: World, key: str) -> None:
    with world.sessions.begin() as session:
        _, token = keys.issue(
            session,
            PEPPER.encode(),
            tenant_id=uuid.UUID(world.tenant_id(key)),
            name="reader",
            scopes=["read"],
        )
    with pytest.raises(openai.PermissionDeniedError):
        await ask(world, token)


@pytest.mark.parametrize("way", ["suspend", "archive"])
async def test_a_tenants_keys_stop_within_a_second(world: World, key: str, way: str) -> None:
    await ask(world, key)
    tenant_id = uuid.UUID(world.tenant_id(key))
    with world.sessions.begin() as session:
        if way == "suspend":
            tenants.set_status(session, tenant_id=tenant_id, status="suspended")
        else:
            project = projects.create(session, tenant_id=tenant_id, name="lab")
            projects.change(session, tenant_id=tenant_id, project_id=project.id, archived=True)
            session.execute(update(ApiKey).values(project_id=project.id))
    stopped_at = time.monotonic()
    while True:
        began_at = time.monotonic()
        try:
            await ask(world, key)
        except openai.AuthenticationError:
            break
        assert began_at - stopped_at <= 1.0, "a request was admitted after a second"
        await asyncio.sleep(0.05)


async def test_the_last_use_of_a_key_is_told_off_the_requests_way(world: World, key: str) -> None:
    database = Database(world.settings.database_url, pool_size=1, timeout_seconds=10)
    authenticator = Authenticator(database, PEPPER.encode())
    used = []
    for _ in range(2):
        await authenticator.principal(key)
        with world.sessions.begin() as session:
            used.append(session.scalars(select(ApiKey.last_used_at)).one())
        await authenticator.tell_uses()
    database.close()
    with world.sessions.begin() as session:
        assert used == [None, session.scalars(select(ApiKey.last_used_at)).one()]
    assert used[1] is not None
