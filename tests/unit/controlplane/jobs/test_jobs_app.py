"""The real Celery worker and clock, on real servers, as the supervisor runs them."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from support.orders import stock
from support.polling import until
from support.shop import Shop, cost_p

from controlplane.jobs.app import MOST_UNREAD, QUEUE, broker_url
from controlplane.registry import leases
from controlplane.registry.leases import Lease
from controlplane.supervisor.postgres import Postgres
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 0)

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a Celery process, which is stopped at the end."""
    started: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLASHPLANE_LOG_DIR": str(tmp_path / "logs"),
    }

    def celery(*arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "celery", "--app", "controlplane.jobs.app", *arguments]
        started.append(
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
        )
        return started[-1]

    yield celery
    for process in started:
        process.terminate()
    for process in started:
        process.wait(timeout=20)


def worker(start: Start) -> "subprocess.Popen[bytes]":
    return start("--quiet", "worker", "--pool", "solo", "--without-mingle", "--without-gossip")


def clock(start: Start) -> "subprocess.Popen[bytes]":
    return start("--quiet", "beat", "--pidfile", "", "--schedule", "schedule")


def test_what_is_staged_is_settled_and_what_is_dead_is_released(
    start: Start, shop: Shop, tmp_path: Path
) -> None:
    worker(start)
    clock(start)
    customer = shop.customer(10**12)
    used, dead = shop.hold(customer), shop.hold(customer)
    shop.stage(shop.trace(customer, used, USAGE))
    shop.close_epoch()
    until(lambda: shop.books().open_holds == 0, seconds=20, what="settled and released")
    assert used != dead
    assert shop.balance(customer).balance_p == 10**12 - cost_p(USAGE)
    assert shop.books().violations == []
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"jobs.log", "beat.log"}


def test_ticks_do_not_pile_up_while_no_worker_runs(
    start: Start, redis_url: str, shop: Shop
) -> None:
    clock(start)
    with redis.Redis.from_url(redis_url) as broker:
        until(lambda: broker.llen(QUEUE) == MOST_UNREAD, seconds=20, what="unread ticks")
        customer = shop.customer(10**12)
        shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
        worker(start)
        until(lambda: broker.llen(QUEUE) == 0, seconds=20, what="an empty queue")
    until(lambda: shop.books().open_holds == 0, seconds=20, what="settled")


def test_the_clock_holds_its_ticks_while_they_are_not_read(start: Start, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as broker:
        broker.rpush(QUEUE, *["unread"] * MOST_UNREAD)
        beat = clock(start)
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: broker.llen(QUEUE) > MOST_UNREAD, seconds=3, what="one tick more")
        assert beat.poll() is None
        assert broker.llen(QUEUE) == MOST_UNREAD


def test_the_worker_outlives_its_database(
    start: Start, shop: Shop, database_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    customer = shop.customer(10**12)
    held = shop.hold(customer)
    jobs = worker(start)
    clock(start)
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        name = database_url.split("/")[3].split("?")[0]
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        connection.execute(kick, [name])
        log = tmp_path / "logs" / "jobs.log"
        until(
            lambda: log.exists() and "database_unavailable" in log.read_text(),
            seconds=20,
            what="an outage",
        )
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    shop.stage(shop.trace(customer, held, USAGE))
    until(lambda: shop.books().open_holds == 0, seconds=20, what="settled after the outage")
    assert jobs.poll() is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock"),
    ],
)
def test_celery_gets_its_own_spelling_of_a_socket(given: str, expected: str) -> None:
    assert broker_url(given) == expected


def test_gpu_time_is_charged_and_its_end_acknowledged(
    start: Start, shop: Shop, redis_url: str
) -> None:
    customer = shop.customer(10**12)
    with shop.sessions.begin() as session:
        stock(session)
    began = time.time()
    life = Lease(
        uid=str(uuid.uuid4()),
        replica="bot-0",
        deployment="fp-t/bot",
        path="dedicated",
        tenant_id=str(customer.tenant_id),
        configuration="h200-x4",
        gpus=4,
        spot=False,
        alive_since=began,
        published_at=began + 0.5,
        ended=True,
    )
    with redis.Redis.from_url(redis_url) as store:
        leases.TABLE.publish(store, life.uid, life)
        worker(start)
        clock(start)
        until(lambda: not store.hlen(leases.TABLE.key), seconds=30, what="an acknowledgement")
    until(lambda: shop.balance(customer).balance_p < 10**12, seconds=20, what="a charge")
    assert shop.books().violations == []
