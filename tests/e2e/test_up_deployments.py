"""Deployments on one machine: ordered over REST, served through the gateway by real workers."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support.polling import until
from support.product import Product, kill, processes_of, product

from controlplane.processes.process import identify

MODEL = "deepseek-v4-flash"
WEIGHTS = {"pvc": {"claim": "tiny"}}
SERVING_SECONDS = 90.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with product(tmp_path_factory.mktemp("deployments")) as own:
        own.up()
        yield own
        own.down()
        assert processes_of(own.folder) == {}


@pytest.fixture
def customer(running: Product) -> Iterator[httpx.Client]:
    up = running.announced()
    with client(up["base_url"], up["api_key"]) as http:
        yield http


@pytest.fixture
def admin(running: Product) -> Iterator[httpx.Client]:
    up = running.announced()
    with client(up["admin_url"], up["admin_key"]) as http:
        yield http


def client(url: str, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)


def order(customer: httpx.Client, name: str, **spec: Any) -> str:
    """Order a dedicated deployment of one tiny replica; return where it is shown."""
    body = {
        "name": name,
        "path": "dedicated",
        "spec": {"configurations": ["cpu-tiny"], "replicas": 1, "weights": WEIGHTS, **spec},
    }
    answer = customer.post("/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    return f"/v1/deployments/{answer.json()['id']}"


def change(customer: httpx.Client, where: str, **spec: Any) -> int:
    """Change a deployment; return its new generation."""
    answer = customer.patch(where, json={"spec": spec})
    assert answer.status_code == 200, answer.text
    generation: int = answer.json()["generation"]
    return generation


def seen(http: httpx.Client, where: str, what: Any) -> dict[str, Any]:
    """A deployment, as soon as `what(deployment)` holds."""
    last: dict[str, Any] = {}

    def holds() -> bool:
        nonlocal last
        answer = http.get(where)
        last = answer.json()
        return answer.status_code == 200 and bool(what(last))

    try:
        until(holds, seconds=SERVING_SECONDS, what=f"{where} to be so")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {json.dumps(last)}") from None
    return last


def serves(deployment: dict[str, Any]) -> bool:
    return bool(deployment["phase"] == "Serving")


def models(http: httpx.Client) -> list[str]:
    return [it["id"] for it in http.get("/v1/models").json()["data"]]


def complete(http: httpx.Client, model: str, max_tokens: int = 2) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": max_tokens,
        "thinking": {"type": "disabled"},
    }
    return http.post("/v1/chat/completions", json=body)


def stream(http: httpx.Client, model: str, tokens: int, begun: threading.Event) -> int:
    """Read a whole stream; return how many tokens its usage tells. Sets `begun` at the first."""
    body = {
        "model": model,
        "prompt": "One, two,",
        "max_tokens": tokens,
        "temperature": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    count, done = 0, False
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                begun.set()
                count = (chunk.get("usage") or {}).get("completion_tokens", count)
    assert done, "the stream broke off"
    return count


def test_a_dedicated_deployment_serves_its_tenant_and_nobody_else(
    customer: httpx.Client, admin: httpx.Client
) -> None:
    where = order(customer, "mine")
    assert seen(customer, where, serves)["model"] == f"{MODEL}@mine"
    answer = complete(customer, f"{MODEL}@mine")
    assert answer.status_code == 200, answer.text
    assert f"{MODEL}@mine" in models(customer)
    stranger = admin.post("/admin/v1/tenants", json={"name": "stranger"}).json()["id"]
    admin.post(f"/admin/v1/tenants/{stranger}/top-ups", json={"amount_usd": "1"})
    key = admin.post(f"/admin/v1/tenants/{stranger}/keys", json={}).json()["key"]
    with client(str(customer.base_url), key) as other:
        refused = complete(other, f"{MODEL}@mine")
        unknown = complete(other, f"{MODEL}@none")
        assert (refused.status_code, unknown.status_code) == (404, 404)
        assert refused.json()["error"]["code"] == unknown.json()["error"]["code"]
        assert other.get(where).status_code == 404
    assert customer.delete(where).status_code == 202
    seen(customer, where, lambda it: it["state"] == "deleted")
    assert complete(customer, f"{MODEL}@mine").status_code == 404


def test_a_rollout_loses_no_stream(customer: httpx.Client) -> None:
    where = order(customer, "rolling")
    before = seen(customer, where, serves)["status"]["currentRevision"]
    begun = [threading.Event() for _ in range(3)]
    with ThreadPoolExecutor(len(begun)) as pool:
        streams = [pool.submit(stream, customer, f"{MODEL}@rolling", 600, it) for it in begun]
        assert all(it.wait(30) for it in begun)
        generation = change(customer, where, engine={"maxRunning": 3})
        after = seen(
            customer,
            where,
            lambda it: (
                it["observed_generation"] == generation
                and it["status"]["currentRevision"] != before
                and it["status"].get("rollout") is None
                and serves(it)
            ),
        )
        assert [it.result(120) for it in streams] == [600] * 3
    assert after["status"]["desired"] == 1
    assert complete(customer, f"{MODEL}@rolling").status_code == 200
    customer.delete(where)


def test_stopping_lets_requests_finish(customer: httpx.Client) -> None:
    where = order(customer, "stopping")
    seen(customer, where, serves)
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running_stream = pool.submit(stream, customer, f"{MODEL}@stopping", 400, begun)
        assert begun.wait(30)
        change(customer, where, stopped=True)
        assert running_stream.result(120) == 400
    seen(customer, where, lambda it: it["phase"] == "Stopped" and not it["status"]["replicas"])
    refused = complete(customer, f"{MODEL}@stopping")
    assert refused.status_code == 503, refused.text
    customer.delete(where)


def test_a_pool_sleeps_and_is_woken_by_a_request(
    customer: httpx.Client, admin: httpx.Client
) -> None:
    prices = dict.fromkeys(("hit", "miss", "output"), "0.1")
    price = {f"{name}_usd_per_million": amount for name, amount in prices.items()}
    assert admin.post("/admin/v1/prices", json={"model": "sleepy", **price}).status_code == 201
    scaling = {"min": 0, "max": 1, "idleSeconds": 2, "stabilizationSeconds": 1}
    spec = {
        "model": "sleepy",
        "configurations": ["cpu-tiny"],
        "weights": WEIGHTS,
        "scaling": scaling,
    }
    body = {"name": "sleepy", "path": "serverless", "spec": spec}
    answer = admin.post("/admin/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    where = f"/admin/v1/deployments/{answer.json()['id']}"

    def sleeps(deployment: dict[str, Any]) -> bool:
        return deployment["phase"] == "Idle" and deployment["status"]["replicas"] == 0

    seen(admin, where, sleeps)
    until(
        lambda: complete(customer, "sleepy").status_code == 200,
        seconds=SERVING_SECONDS,
        what="the gateway to know the pool, which then wakes",
    )
    seen(admin, where, sleeps)
    held = complete(customer, "sleepy")
    assert held.status_code == 200, held.text
    admin.delete(where)


def test_a_bare_endpoint_says_what_it_needs(customer: httpx.Client) -> None:
    body = {"name": "box", "path": "bare", "spec": {"configurations": ["h200-x1"]}}
    answer = customer.post("/v1/deployments", json=body)
    assert answer.status_code >= 400
    assert "h200-x1" in answer.json()["error"]["message"]
    body["spec"] = {"configurations": ["cpu-tiny"], "command": ["touch", "/tmp/no"]}
    answer = customer.post("/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    where = f"/v1/deployments/{answer.json()['id']}"

    def is_refused(deployment: dict[str, Any]) -> bool:
        conditions = deployment["status"].get("conditions", ())
        return any(it["type"] == "Accepted" and it["status"] == "False" for it in conditions)

    told = seen(customer, where, is_refused)
    (accepted,) = (it for it in told["status"]["conditions"] if it["type"] == "Accepted")
    assert "GPU" in accepted["message"]
    customer.delete(where)
    seen(customer, where, lambda it: it["state"] == "deleted")


def test_a_killed_operator_leaves_nothing_and_makes_it_anew(
    running: Product, customer: httpx.Client
) -> None:
    where = order(customer, "lasting")
    seen(customer, where, serves)
    (worker,) = engines_of(running)
    operator = running.announced()["pids"]["operator"]
    kill(operator)
    until(lambda: identify(worker) is None, seconds=30, what="the old worker to end")
    until(
        lambda: complete(customer, f"{MODEL}@lasting").status_code == 200,
        seconds=SERVING_SECONDS,
        what="the deployment to serve again",
    )
    assert running.announced()["pids"]["operator"] != operator
    assert len(engines_of(running)) == 1
    customer.delete(where)
    seen(customer, where, lambda it: it["state"] == "deleted")
    assert engines_of(running) == []


def engines_of(product: Product) -> list[int]:
    """The pids of pods' workers; the built-in one has a journal."""
    return [
        pid
        for pid, command in processes_of(product.folder).items()
        if "flashplane-worker serve" in command and "--journal" not in command
    ]
