"""What went wrong elsewhere and must not here, by the name that it had there."""

from pathlib import Path

import httpx
import redis
from support.engine import Plan, running_engine
from support.gateway import MODEL, make_world, running_gateway
from support.shop import GATEWAY, Shop, cost_p

from controlplane.accounts import budgets
from controlplane.billing import budget_terms
from controlplane.tenants import keys
from controlplane.usage.journal import JournalDir
from controlplane.usage.records import TokenUsage
from controlplane.usage.recovery import recover

PEPPER = b"pepper-of-the-tests"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


async def test_counters_in_the_store_inflate(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """litellm#30460: nothing counts money there, so nothing there can refuse anybody wrongly."""
    async with running_engine() as engine:
        engine.plan = Plan(words=["x"] * 5, prompt_tokens=30)
        with make_world(database_url, redis_url, tmp_path / "journal") as world:
            world.publish(engine.url)
            token = world.tenant()
            with world.sessions.begin() as session:
                principal = keys.authenticate(session, PEPPER, token)
                assert principal is not None
                limit = budget_terms.create(
                    session, tenant_id=principal.tenant_id, period="total", limit_p=10**9
                )
            async with running_gateway(world), world.http(token) as http:
                for _ in range(5):
                    await _left(http)
                    assert (await http.post("/chat/completions", json=BODY)).status_code == 200
                    assert str(principal.tenant_id) not in _inflated(redis_url)
                    rows = await world.settled_all()
            with world.sessions.begin() as session:
                (now,) = budgets.of_tenant(session, tenant_id=principal.tenant_id)
    assert now.spent_p == sum(row.charge_p for row in rows) > 0
    assert (now.held_p, now.available_p) == (0, limit.limit_p - now.spent_p)


async def _left(http: httpx.AsyncClient) -> None:
    """A request whose client leaves at its first word."""
    async with http.stream("POST", "/chat/completions", json=BODY | {"stream": True}) as answer:
        async for _ in answer.aiter_lines():
            return


def _inflated(redis_url: str) -> str:
    """Count up every counter in the store a thousandfold; return all that the store holds."""
    found = []
    with redis.Redis.from_url(redis_url) as store:
        for name in store.scan_iter():
            if store.type(name) == b"string":
                store.incrby(name, 10**12)
            found += [name, str(store.hgetall(name)) if store.type(name) == b"hash" else ""]
    return " ".join(map(str, found))


def test_reservations_leak_after_an_upgrade(shop: Shop, tmp_path: Path) -> None:
    """litellm#27639: what a life of a gateway held ends with it, whoever comes after."""
    customer = shop.customer(10**9)
    never_sent = [shop.hold(customer) for _ in range(3)]
    sent = shop.hold(customer)
    usage = TokenUsage(0, 10, 5, 0)
    shop.stage(shop.trace(customer, sent, usage))
    assert shop.balance(customer).held_p > 0
    for _ in range(2):  # the next version starts; then it is replaced as well
        directory = JournalDir(tmp_path)
        recover(shop.sessions, directory, GATEWAY)
        directory.close()
    assert shop.settle() == 1
    assert shop.release_dead() == len(never_sent)
    balance = shop.balance(customer)
    assert (balance.held_p, balance.balance_p) == (0, 10**9 - cost_p(usage))
    assert shop.books().violations == []
