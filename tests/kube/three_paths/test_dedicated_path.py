"""A customer's own deployment: ordered over REST, rolled out under streams, billed as proven.

The tests share one deployment; the last one ends it.
"""

import pytest
from support.polling import until
from support.site import Site
from support.streaming import customer, stream, traffic

from controlplane.crd.conditions import Reason
from controlplane.deployments.models import Deployment
from controlplane.operator.replica import drain

MODEL = "deepseek-v4-flash@bot"


@pytest.fixture(scope="module")
def bot(site: Site) -> Deployment:
    """A deployment of one replica that serves, with a canary step for changes."""
    rollout = {
        "canarySteps": [{"weight": 50, "seconds": 1}],
        # Two engines on one busy processor: only errors count, and little of them says nothing.
        "abortOn": {"requests": 3, "ttftRatio": 1000},
    }
    spec = {"configurations": ["cpu-tiny"], "replicas": 1, "rollout": rollout}
    body = {"name": "bot", "path": "dedicated", "spec": spec}
    with customer(site.url, site.customer.token) as http:
        answer = http.post("/v1/deployments", json=body)
    assert answer.status_code == 201, answer.text
    ordered = site.find(answer.json()["id"])
    site.serving(ordered)
    return ordered


def test_it_answers_its_own_tenant_and_nobody_else(site: Site, bot: Deployment) -> None:
    token = site.customer.token
    until(lambda: MODEL in site.models(token), seconds=10, what="the gateway to offer it")
    with customer(site.url, token) as http:
        seen = stream(http, MODEL, 5)
    assert (seen.done, seen.tokens) == (True, 5)
    stranger = site.shop.customer(10**12)
    with customer(site.url, stranger.token) as http:
        refused = stream(http, MODEL, 5)
        assert http.get(f"/v1/deployments/{bot.id}").status_code == 404
    assert refused.error[0] == 404


def test_a_rollout_with_a_canary_loses_no_stream(site: Site, bot: Deployment) -> None:
    before = site.serving(bot).status.current_revision
    (old,) = [it for it in site.lives(bot) if not it.over]
    with traffic(site.url, site.customer.token, MODEL, clients=3, tokens=60) as streams:
        with customer(site.url, site.customer.token) as http:
            change = {"spec": {"engine": {"maxRunning": 5}}}
            assert http.patch(f"/v1/deployments/{bot.id}", json=change).status_code == 200
        candidate = site.when(bot, lambda it: it.status.rollout and it.status.rollout.weight)
        assert candidate.status.current_revision == before
        after = site.when(bot, lambda it: it.status.current_revision != before)
        until(lambda: old.over, seconds=60, what="the old replica to end")
    assert (streams.lost, after.status.refused_revision) == ([], "")
    assert old.drained_by == drain.ACKNOWLEDGED
    assert site.serving(bot).status.rollout is None


def test_a_broken_revision_is_given_up_and_the_old_one_serves_on(
    site: Site, bot: Deployment
) -> None:
    before = site.serving(bot).status.current_revision
    with traffic(site.url, site.customer.token, MODEL, clients=2, tokens=60) as streams:
        # No tenant may set arguments; this is the platform's own mistake.
        broken = {"maxRunning": 6, "arguments": ["--no-such-option"]}
        site.change(bot, engine=broken, rollout={"startSeconds": 10})
        given_up = site.when(bot, lambda it: it.status.refused_revision)
        after = site.serving(bot)
    assert streams.lost == []
    assert after.status.current_revision == before
    (aborted,) = [it for it in after.status.conditions if it.reason == Reason.CANARY_ABORTED]
    assert "No such option" in aborted.message
    assert given_up.status.rollout is not None
    site.change(bot, engine={"maxRunning": 5, "arguments": None})
    site.when(bot, lambda it: not it.status.refused_revision)


def test_what_is_deleted_is_gone_and_billed_as_proven(site: Site, bot: Deployment) -> None:
    site.serving(bot)
    with customer(site.url, site.customer.token) as http:
        assert http.delete(f"/v1/deployments/{bot.id}").status_code == 202
        site.gone(bot)
        until(lambda: stream(http, MODEL, 5).error, seconds=10, what="the gateway to forget it")
        found = site.billed(bot)
        usage = http.get(f"/v1/deployments/{bot.id}/usage").json()
    assert usage["billed_ms"] == usage["proven_ms"] == sum(it.proven_ms for it in found) > 0
    assert usage["charge_p"] == str(sum(it.billed_p for it in found))
    assert site.books() == []
