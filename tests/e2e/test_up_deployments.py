"""Deployments on one machine: ordered over REST, served through the gateway by real workers."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from support.polling import until
from support.product import Product, kill, processes_of, product
from support.renting import (
    MODEL,
    SERVING_SECONDS,
    WEIGHTS,
    bill,
    change,
    client,
    complete,
    models,
    order,
    runs,
    seen,
    serves,
    stream,
)

from controlplane.money import usd_to_p
from controlplane.processes.process import identify


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
    until(
        lambda: complete(customer, f"{MODEL}@mine").status_code == 404,
        seconds=10,
        what="the gateway to forget it",
    )


def test_a_rollout_loses_no_stream(customer: httpx.Client) -> None:
    where = order(customer, "rolling")
    before = seen(customer, where, serves)["status"]["currentRevision"]
    rolled_out = threading.Event()

    def stream_on(begun: threading.Event) -> int:
        count = 0
        while not rolled_out.is_set():
            assert stream(customer, f"{MODEL}@rolling", 100, begun) == 100
            count += 1
        return count

    begun = [threading.Event() for _ in range(3)]
    with ThreadPoolExecutor(len(begun)) as pool:
        streams = [pool.submit(stream_on, it) for it in begun]
        try:
            assert all(it.wait(30) for it in begun)
            generation = change(customer, where, engine={"maxRunning": 3})
            after = seen(
                customer,
                where,
                lambda it: (
                    it["observed_generation"] == generation
                    and it["status"]["currentRevision"] != before
                    and it["status"].get("rollout") is None
                    and it["status"]["replicas"] == 1
                    and serves(it)
                ),
            )
        finally:
            rolled_out.set()
        assert all(it.result(60) > 1 for it in streams)
    assert after["status"]["desired"] == 1
    customer.delete(where)


def test_gpu_time_is_billed_exactly_while_replicas_come_and_go(
    running: Product, customer: httpx.Client
) -> None:
    where = order(customer, "counted")
    seen(customer, where, serves)
    change(customer, where, replicas=2)
    seen(customer, where, partial(runs, replicas=2))
    until(lambda: len(bill(customer, where)) == 2, seconds=20, what="both to be proven to serve")
    change(customer, where, replicas=1)
    seen(customer, where, partial(runs, replicas=1))
    customer.delete(where)
    seen(customer, where, lambda it: it["state"] == "deleted")
    until(
        lambda: all(it["ended_at"] for it in bill(customer, where)),
        seconds=30,
        what="both lives to be over",
    )
    until(
        lambda: all(it["billed_ms"] == it["proven_ms"] for it in bill(customer, where)),
        seconds=30,
        what="all of it to be billed",
    )
    intervals = bill(customer, where)
    assert len(intervals) == 2
    for interval in intervals:
        rate_p, billed_ms = usd_to_p(interval["usd_per_hour"]), interval["billed_ms"]
        assert billed_ms > 0
        assert usd_to_p(interval["charge_usd"]) == rate_p * billed_ms // 3_600_000

    def books() -> str:
        told: str = json.loads(running.command("status", "--json").stdout)["books"]
        return told

    until(lambda: books() == "exact", seconds=20, what="the books to be exact")


def test_stopping_lets_requests_finish_and_starting_serves_again(customer: httpx.Client) -> None:
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
    change(customer, where, stopped=False)
    seen(customer, where, serves)
    assert complete(customer, f"{MODEL}@stopping").status_code == 200
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
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        """Refused at once until the gateway knows the pool, then held."""
        answers.append(complete(customer, "sleepy"))
        return answers[-1].status_code == 200

    until(is_answered, seconds=SERVING_SECONDS, what="the pool to answer")
    assert answers[-1].elapsed.total_seconds() > 1, "no engine starts as quickly as that"
    refusals = {it.json()["error"]["code"] for it in answers[:-1]}
    assert refusals <= {"model_not_found", "no_replica"}, "its price, then its pool get known"
    seen(admin, where, sleeps)
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


@pytest.fixture(scope="module")
def lasting(running: Product) -> Iterator[str]:
    """A deployment that outlives what is killed around it."""
    up = running.announced()
    with client(up["base_url"], up["api_key"]) as http:
        where = order(http, "lasting")
        yield where
        http.delete(where)
        seen(http, where, lambda it: it["state"] == "deleted")
    assert engines_of(running) == []


def serves_again(product: Product, customer: httpx.Client, killed: int) -> None:
    """Wait until `lasting` answers, from one engine that is not the one that was killed."""

    def answers() -> bool:
        try:
            return complete(customer, f"{MODEL}@lasting").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, seconds=SERVING_SECONDS, what="the deployment to serve again")
    assert identify(killed) is None
    assert len(engines_of(product)) == 1


def test_a_killed_engine_is_started_again(
    running: Product, customer: httpx.Client, lasting: str
) -> None:
    seen(customer, lasting, serves)
    (worker,) = engines_of(running)
    kill(worker)
    serves_again(running, customer, worker)


def test_a_killed_operator_leaves_nothing_and_makes_it_anew(
    running: Product, customer: httpx.Client, lasting: str
) -> None:
    seen(customer, lasting, serves)
    (worker,) = engines_of(running)
    operator = running.announced()["pids"]["operator"]
    kill(operator)
    until(lambda: identify(worker) is None, seconds=30, what="the old worker to end")
    serves_again(running, customer, worker)
    assert running.announced()["pids"]["operator"] != operator


def test_after_everything_but_the_engines_was_killed_the_next_up_serves_again(
    running: Product, customer: httpx.Client, lasting: str
) -> None:
    seen(customer, lasting, serves)
    (worker,) = engines_of(running)
    pids = running.announced()["pids"]
    for name in sorted(pids, key=lambda name: name != "supervisor"):
        kill(pids[name])
    assert identify(worker)
    stopped = running.command("down").stdout
    assert "processes of pods, left by an operator that died" in stopped
    assert processes_of(running.folder) == {}
    running.up()
    serves_again(running, customer, worker)


def engines_of(product: Product) -> list[int]:
    """The pids of the engines of `lasting`."""
    return [
        pid
        for pid, command in processes_of(product.folder).items()
        if "flashplane-worker serve" in command and f"{MODEL}@lasting" in command
    ]
