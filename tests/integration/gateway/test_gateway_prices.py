"""A running gateway learns of prices that are published, and pins what held for whom."""

import asyncio
import uuid

from support.engine import Engine, Plan
from support.gateway import MODEL, World

from controlplane.gateway.prices import REFRESH_SECONDS
from controlplane.pricing import book
from controlplane.pricing.drafts import Draft, Rates

HELLO = [{"role": "user", "content": "Hello"}]
OWN_P = 20 * 1 + 10 * 10 + 5 * 100 + 1_000


async def test_a_tenants_own_price_is_charged_as_soon_as_the_gateway_knows_it(
    world: World, engine: Engine
) -> None:
    engine.plan = Plan(reasoning=["Let", " me"], prompt_tokens=30, hit_tokens=20)
    key, other = world.tenant(), world.tenant()
    rates = {"standard": Rates(1, 10, 100, 1_000)}
    draft = Draft(model=MODEL, rates=rates, tenant_id=uuid.UUID(world.tenant_id(key)))
    with world.sessions.begin() as session:
        own = book.publish_all(session, [draft])[0].id
    versions: list[uuid.UUID] = []
    async with world.client(key) as client, world.client(other) as stranger:
        while own not in versions:
            assert len(versions) < 100, "the gateway never learned of the price"
            await asyncio.sleep(REFRESH_SECONDS / 10)
            await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=20)
            rows = await world.settled(len(versions) + 1)
            versions = [row.price_version_id for row in rows]
        await stranger.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=20)
    rows = await world.settled(len(versions) + 1)
    (charged,) = (row for row in rows if row.price_version_id == own)
    assert (charged.charge_p, charged.band) == (OWN_P, "standard")
    assert str(charged.tenant_id) == world.tenant_id(key)
