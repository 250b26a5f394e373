"""A tenant's own deployment: its alone, and paid for by the hour."""

import asyncio
from typing import Any

import httpx
import pytest
from support.engine import Engine, running_engine
from support.gateway import MODEL, World

from controlplane.billing.receipts import receipt
from controlplane.gateway.polling import POLL_SECONDS

OWN = f"{MODEL}@prod"
POOL = "tenant-a/prod"


def body(model: str = OWN, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}


async def known(http: httpx.AsyncClient, model: str) -> None:
    """Wait until the gateway has read of a model."""
    async with asyncio.timeout(5):
        while (await http.get(f"/models/{model}")).status_code != 200:
            await asyncio.sleep(POLL_SECONDS / 10)


def deploy(world: World, url: str, key: str, **fields: Any) -> None:
    told = {"model": OWN, "path": "dedicated", "tenant_id": world.tenant_id(key)}
    world.offer(POOL, **told, serving=1, max_model_len=4096)
    world.publish(url, name="own", max_model_len=4096, deployment=POOL, **told, **fields)


async def test_an_empty_account_uses_its_own_deployment_for_nothing(world: World) -> None:
    key = world.tenant("0")
    async with running_engine() as own, world.http(key) as http:
        deploy(world, own.url, key)
        await known(http, OWN)
        assert (await http.post("/chat/completions", json=body(MODEL))).status_code == 402
        response = await http.post("/chat/completions", json=body())
        assert response.status_code == 200, response.text
        assert own.requests[0]["model"] == OWN
    (row,) = await world.settled(1)
    assert (row.model, row.path, row.charge_p) == (OWN, "dedicated", 0)
    assert (row.miss_tokens, row.output_tokens) == (10, 3)
    with world.sessions.begin() as session:
        told = receipt(session, tenant_id=row.tenant_id, request_id=row.request_id)
        assert (told.price.path, told.lines) == ("dedicated", [])


async def test_to_everybody_else_it_does_not_exist(world: World, engine: Engine) -> None:
    key, other = world.tenant(), world.tenant()
    deploy(world, engine.url, key)
    async with world.http(key) as owner, world.http(other) as stranger:
        await known(owner, OWN)
        for method, path, content in (
            ("POST", "/chat/completions", body("NAME")),
            ("POST", "/completions", {"model": "NAME", "prompt": "x"}),
            ("GET", "/models/NAME", None),
        ):
            answers = []
            for name in (OWN, f"{MODEL}@none"):
                told = content and content | {"model": name}
                answer = await stranger.request(method, path.replace("NAME", name), json=told)
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "model_not_found"
                headers = {k: v for k, v in answer.headers.items() if k not in ("date",)}
                headers.pop("x-request-id")
                answers.append((answer.text.replace(name, "NAME"), headers))
            (seen, seen_headers), (unknown, unknown_headers) = answers
            assert seen == unknown
            assert seen_headers.keys() == unknown_headers.keys()
        assert (await owner.post("/chat/completions", json=body())).status_code == 200
    assert len(engine.requests) == 1


async def test_a_tenant_is_told_of_its_own_models(world: World, engine: Engine) -> None:
    key, other = world.tenant(), world.tenant()
    deploy(world, engine.url, key)
    async with world.http(key) as http, world.http(other) as stranger:
        await known(http, OWN)
        told = {it["id"]: it for it in (await http.get("/models")).json()["data"]}
        assert list(told) == [MODEL, OWN]
        assert told[OWN]["context_window"] == 4096
        assert [it["id"] for it in (await stranger.get("/models")).json()["data"]] == [MODEL]


async def test_two_tenants_may_use_the_same_name(world: World, engine: Engine) -> None:
    key, other = world.tenant(), world.tenant()
    async with running_engine() as theirs, world.http(key) as http, world.http(other) as second:
        deploy(world, engine.url, key)
        told = {"model": OWN, "path": "dedicated", "tenant_id": world.tenant_id(other)}
        world.publish(theirs.url, name="theirs", deployment="tenant-b/prod", **told)
        await known(http, OWN)
        await known(second, OWN)
        for _ in range(3):
            assert (await second.post("/chat/completions", json=body())).status_code == 200
        assert (len(engine.requests), len(theirs.requests)) == (0, 3)


@pytest.mark.parametrize("model", ["*", "*@prod", f"{MODEL}@", f"{MODEL}@../prod"])
async def test_no_name_is_a_pattern(world: World, model: str) -> None:
    async with world.http(world.tenant()) as http:
        response = await http.post("/chat/completions", json=body(model))
    assert response.status_code == 404
