"""Operators that are killed, an API server that goes away: streams go on, work is taken up again.

The tests share one pool.
"""

import threading

import pytest
from support.polling import until
from support.site import LEASE_SECONDS, Site
from support.streaming import traffic

from controlplane.crd.replica import Phase
from controlplane.deployments.models import Deployment
from controlplane.operator.replica import drain

AWAY_SECONDS = 10.0


@pytest.fixture(scope="module")
def steady(site: Site) -> Deployment:
    """A pool of one replica that serves; the operator was killed while it was on its way."""
    pool = site.place("steady", "serverless", replicas=1)
    until(lambda: any(Phase.LOADING in it.phases for it in site.lives(pool)), seconds=60, what="it")
    site.operators.kill_leader()
    site.serving(pool)
    site.answering(pool)
    return pool


def test_another_operator_goes_on_with_a_start(site: Site, steady: Deployment) -> None:
    (life,) = site.lives(steady)
    assert site.chronicle.pods_of(life) == 1
    until(lambda: len(site.operators.leaders()) == 1, seconds=20, what="one leader")


def test_a_rollout_survives_its_operator(site: Site, steady: Deployment) -> None:
    before = site.serving(steady).status.current_revision
    until(site.operators.leaders, seconds=20, what="a leader")
    with traffic(site.url, site.customer.token, "steady", clients=2, tokens=100) as streams:
        site.change(steady, engine={"maxRunning": 5})
        site.when(steady, lambda it: it.status.loading)
        site.operators.kill_leader()
        site.when(steady, lambda it: it.status.current_revision != before)
        until(site.operators.leaders, seconds=20, what="a leader")
        site.operators.kill_leader()  # while the old replica drains, or has just ended
        after = site.serving(steady)
    assert streams.lost == []
    assert after.status.rollout is None
    assert [site.chronicle.pods_of(it) for it in site.lives(steady)] == [1, 1]
    assert [it.drained_by for it in site.lives(steady) if it.over] == [drain.ACKNOWLEDGED]
    assert site.chronicle.overbooked == []


def test_streams_go_on_without_an_api_server(site: Site, steady: Deployment) -> None:
    before = site.serving(steady).status
    starts = site.operators.starts
    with traffic(site.url, site.customer.token, "steady", clients=2, tokens=60) as streams:
        site.server.kill_api()
        begun = len(streams.streams)
        until(lambda: site.operators.starts > starts, seconds=60, what="the lead to be lost")
        threading.Event().wait(AWAY_SECONDS - LEASE_SECONDS)
        assert len(streams.streams) > begun
        site.server.start_api()
        until(site.operators.leaders, seconds=60, what="a leader")
    assert streams.lost == []
    after = site.serving(steady).status
    assert after.current_revision == before.current_revision
    assert len([it for it in site.lives(steady) if not it.over]) == 1
    until(lambda: not site.writes_at_rest(), seconds=30, what="rest")


def test_a_pool_goes_when_it_is_deleted(site: Site, steady: Deployment) -> None:
    site.delete(steady)
    assert site.chronicle.reserved() == {}
    assert site.books() == []
