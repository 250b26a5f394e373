import pytest

from controlplane.errors import Unavailable
from controlplane.gateway.policies import POLICIES, least_inflight, policy
from controlplane.gateway.router import MAX_CONTEXT_TOKENS, NoneOpen, Router
from controlplane.gateway.snapshot import Route
from controlplane.registry.pools import Pool
from controlplane.registry.replicas import Replica

M = Route("m", "serverless")


def replica(
    name: str,
    model: str = "m",
    length: int = 100,
    *,
    deployment: str = "",
    weight: int = 100,
    draining: bool = False,
) -> Replica:
    return Replica(
        name,
        f"http://{name}",
        model,
        "serverless",
        length,
        0.0,
        deployment=deployment,
        weight=weight,
        draining=draining,
    )


A, B, OTHER = replica("a"), replica("b", length=200), replica("c", model="other")


def router(*replicas: Replica, pools: tuple[Pool, ...] = ()) -> Router:
    result = Router(least_inflight)
    result.update(replicas, pools)
    return result


def chosen(subject: Router, times: int) -> list[str]:
    """Choose, with nothing in flight meanwhile."""
    return [subject.choose(M).id for _ in range(times)]


def test_the_idle_replica_is_chosen() -> None:
    subject = router(A, B, OTHER)
    visit = subject.enter(A)
    assert set(chosen(subject, 4)) == {"b"}
    visit.leave()
    assert set(chosen(subject, 4)) == {"a", "b"}


def test_a_tried_replica_is_passed_over_while_there_is_another() -> None:
    assert router(A, B).choose(M, ["a"]) == B
    assert router(A).choose(M, ["a"]) == A


def test_an_ejected_replica_is_passed_over_while_there_is_another() -> None:
    subject = router(A, B)
    subject.eject(A)
    assert set(chosen(subject, 4)) == {"b"}
    subject.eject(B)
    assert subject.choose(M) in (A, B)


def test_no_replica_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        router(A).choose(Route("other", "serverless"))
    with pytest.raises(Unavailable):
        router(A).max_model_len(Route("m", "dedicated", "t"))


def test_the_longest_context_is_known_after_its_replica_has_gone() -> None:
    subject = router(A, B)
    assert subject.max_model_len(M) == 200
    subject.update([])
    assert subject.context_window(M) == 200
    assert subject.context_window(Route("none", "serverless")) is None


def test_a_deployment_without_replicas_tells_its_own_context() -> None:
    told = Pool("ns/p", "m", "serverless", 0.0, max_model_len=4096)
    assert router(pools=(told,)).max_model_len(M) == 4096
    unknown = Pool("ns/p", "m", "serverless", 0.0)
    assert router(pools=(unknown,)).max_model_len(M) == MAX_CONTEXT_TOKENS


def test_a_draining_replica_takes_nothing_new_while_its_requests_go_on() -> None:
    subject = router(A)
    visit = subject.enter(A)
    subject.update([replica("a", draining=True), B])
    assert set(chosen(subject, 4)) == {"b"}
    assert subject.report("g", {}).draining == {"a": 1}
    visit.leave()
    report = subject.report("g", {})
    assert (report.draining, report.inflight) == ({"a": 0}, {})


def test_only_draining_replicas_are_none() -> None:
    subject = router(replica("a", draining=True))
    with pytest.raises(NoneOpen):
        subject.choose(M)
    with pytest.raises(NoneOpen):
        subject.choose(M, ["a"])


def test_an_older_word_does_not_open_what_was_told_to_drain() -> None:
    subject = router(replica("a", draining=True))
    subject.update([A])
    assert subject.report("g", {}).draining == {"a": 0}
    with pytest.raises(NoneOpen):
        subject.choose(M)


def test_a_replica_is_reported_as_draining_only_once_it_cannot_be_chosen() -> None:
    subject = router(A)
    assert subject.report("g", {}).draining == {}
    visit = subject.enter(subject.choose(M))
    assert subject.report("g", {}).inflight == {"a": 1}
    subject.update([replica("a", draining=True)])
    assert subject.report("g", {}).draining == {"a": 1}
    visit.leave()


def test_weights_are_shares_of_the_requests_even_when_nothing_is_in_flight() -> None:
    current = [replica(name, deployment="d", weight=45) for name in ("a", "b")]
    subject = router(*current, replica("canary", deployment="d", weight=10))
    ids = chosen(subject, 100)
    assert 9 <= ids.count("canary") <= 11
    assert abs(ids.count("a") - ids.count("b")) <= 2
    assert "canary" in ids[:12], "a small share comes soon, and not all at once"


def test_within_one_weight_the_idle_replica_is_chosen() -> None:
    current = [replica(name, deployment="d", weight=50) for name in ("a", "b")]
    subject = router(*current, replica("canary", deployment="d", weight=1))
    subject.enter(current[0])
    ids = chosen(subject, 50)
    assert ids.count("a") == 0
    assert ids.count("b") >= 48


def test_a_replica_of_no_weight_gets_no_request() -> None:
    subject = router(A, replica("zero", weight=0))
    assert set(chosen(subject, 10)) == {"a"}
    with pytest.raises(NoneOpen):
        router(replica("zero", weight=0)).choose(M)


def test_one_deployments_weights_do_not_touch_another() -> None:
    subject = router(
        replica("a", deployment="d", weight=90),
        replica("b", deployment="d", weight=10),
        replica("c", deployment="e", weight=1),
    )
    ids = chosen(subject, 90)
    assert ids.count("c") == 30
    assert ids.count("b") == pytest.approx(6, abs=2)


def test_a_minute_of_visits_is_reported_by_replica() -> None:
    subject = router(A)
    for tokens in (1, 5):
        visit = subject.enter(A)
        visit.said(1)
        visit.said(tokens)
        visit.leave(failed=tokens == 5)
    subject.enter(A).leave()
    told = subject.report("g", {}).latency["a"]
    assert (told.requests, told.errors) == (3, 1)
    assert told.ttft_p95_ms is not None
    assert told.itl_p95_ms is not None


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_fair_among_equals(name: str) -> None:
    choices = [policy(name)([A, B], {}, turn) for turn in range(10)]
    assert choices.count(A) == choices.count(B) == 5


def test_an_unknown_policy_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known are least_inflight, round_robin"):
        policy("dice")
