import pytest

from controlplane.errors import Unavailable
from controlplane.gateway.policies import POLICIES, least_inflight, policy
from controlplane.gateway.router import Router
from controlplane.registry.replicas import Replica


def replica(name: str, model: str = "m", length: int = 100) -> Replica:
    return Replica(name, f"http://{name}", model, "serverless", length, 0.0)


A, B, OTHER = replica("a"), replica("b", length=200), replica("c", model="other")


def router(*replicas: Replica) -> Router:
    result = Router(least_inflight)
    result.update(replicas)
    return result


def test_the_idle_replica_is_chosen() -> None:
    subject = router(A, B, OTHER)
    subject.enter(A)
    assert {subject.choose("m", "serverless").id for _ in range(4)} == {"b"}
    subject.leave(A)
    assert {subject.choose("m", "serverless").id for _ in range(4)} == {"a", "b"}


def test_a_tried_replica_is_passed_over_while_there_is_another() -> None:
    assert router(A, B).choose("m", "serverless", ["a"]) == B
    assert router(A).choose("m", "serverless", ["a"]) == A


def test_an_ejected_replica_is_passed_over_while_there_is_another() -> None:
    subject = router(A, B)
    subject.eject(A)
    assert {subject.choose("m", "serverless").id for _ in range(4)} == {"b"}
    subject.eject(B)
    assert subject.choose("m", "serverless") in (A, B)


def test_no_replica_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        router(A).choose("other", "serverless")
    with pytest.raises(Unavailable):
        router(A).max_model_len("m", "dedicated")


def test_the_longest_context_is_known_after_its_replica_has_gone() -> None:
    subject = router(A, B)
    assert subject.max_model_len("m", "serverless") == 200
    subject.update([])
    assert subject.context_window("m", "serverless") == 200
    assert subject.context_window("none", "serverless") is None


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_fair_among_equals(name: str) -> None:
    choices = [policy(name)([A, B], {}, turn) for turn in range(10)]
    assert choices.count(A) == choices.count(B) == 5


def test_an_unknown_policy_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known are least_inflight, round_robin"):
        policy("dice")
