"""Pools: asleep without requests, woken by one, scaled by many; no stream is lost."""

from support.polling import until
from support.site import Site
from support.streaming import Streamed, customer, stream, traffic

from controlplane.crd.replica import Phase
from controlplane.operator.replica import drain


def test_a_sleeping_pool_is_woken_by_a_stream_and_sleeps_again(site: Site) -> None:
    scaling = {"min": 0, "max": 1, "idleSeconds": 3, "stabilizationSeconds": 1}
    pool = site.place("sleepy", "serverless", scaling=scaling)
    site.when(pool, lambda it: it.status.phase == "Idle")
    with customer(site.url, site.customer.token) as http:

        def answer() -> Streamed | None:
            seen = stream(http, "sleepy", 20)
            # It reads prices and pools now and then: until it knows both, it refuses at once.
            return None if seen.error and seen.error[0] in (404, 503) else seen

        seen = until(answer, seconds=10, what="the gateway to know the pool")
    assert seen is not None
    assert (seen.done, seen.tokens, seen.error) == (True, 20, None)
    assert seen.keep_alives > 0
    site.when(pool, lambda it: it.status.phase == "Idle" and not it.status.replicas)
    (life,) = site.lives(pool)
    assert (life.over, life.drained_by) == (True, drain.ACKNOWLEDGED)
    assert site.chronicle.pods_of(life) == 1
    assert site.pods(pool) == []
    assert site.chronicle.reserved() == {}
    assert site.writes_at_rest() == {}
    site.delete(pool)


def test_streams_go_on_while_a_pool_grows_and_shrinks(site: Site) -> None:
    scaling = {"min": 1, "max": 2, "targetInflight": 2}
    scaling |= {"panicSeconds": 1, "stabilizationSeconds": 2}
    pool = site.place("busy", "serverless", scaling=scaling)
    site.serving(pool)
    with traffic(site.url, site.customer.token, "busy", clients=2, tokens=150) as few:
        with traffic(site.url, site.customer.token, "busy", clients=3, tokens=150) as many:
            site.serving(pool, 2)
        site.serving(pool, 1)
    assert (few.lost, many.lost) == ([], [])
    first, second = site.lives(pool)
    ended = first if first.over else second
    assert ended.drained_by == drain.ACKNOWLEDGED
    assert Phase.DRAINING in ended.phases
    assert [site.chronicle.pods_of(it) for it in (first, second)] == [1, 1]
    site.delete(pool)
