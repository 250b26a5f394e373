"""The order of service, on its own: priorities, keys, arrival."""

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.request import Request, SamplingParams
from worker.scheduler.waiting import MAX_IDLE_KEYS, OUTPUT_WEIGHT, WaitingQueue

SAMPLING = SamplingParams(max_tokens=4)


def request(name: str, key: str = "", *, tokens: int = 1, priority: int = 0) -> Request:
    return Request(name, [1] * tokens, SAMPLING, priority=priority, fairness_key=key)


def serve(queue: WaitingQueue) -> str:
    """Compute the first request's prompt and end it."""
    first = queue.peek()
    assert first is not None
    queue.take(first)
    queue.charge(first, len(first.prompt_token_ids))
    queue.forget(first)
    return first.request_id


def filled(*requests: Request) -> WaitingQueue:
    queue = WaitingQueue()
    for r in requests:
        queue.add(r)
    return queue


def test_the_lower_number_goes_first() -> None:
    queue = filled(request("a", priority=1), request("b", priority=-1), request("c"))
    assert [serve(queue) for _ in range(3)] == ["b", "c", "a"]


def test_within_a_key_arrival_decides() -> None:
    queue = filled(*(request(name, "k", tokens=9 - i) for i, name in enumerate("abc")))
    assert [serve(queue) for _ in range(3)] == ["a", "b", "c"]


def test_keys_take_turns_by_tokens_not_by_requests() -> None:
    queue = filled(
        *(request(f"long{i}", "long", tokens=30) for i in range(2)),
        *(request(f"short{i}", "short", tokens=10) for i in range(4)),
    )
    order = [serve(queue) for _ in range(6)]
    assert order == ["long0", "short0", "short1", "short2", "long1", "short3"]


def test_an_idle_key_earns_no_credit() -> None:
    queue = filled(*(request(f"busy{i}", "busy", tokens=10) for i in range(20)))
    for _ in range(10):
        serve(queue)
    for i in range(10):
        queue.add(request(f"new{i}", "new", tokens=10))
    turns = [serve(queue)[:3] for _ in range(10)]
    assert turns.count("new") == 5


def test_leaving_for_a_moment_settles_no_debt() -> None:
    queue = filled(request("a0", "a", tokens=100), *(request(f"b{i}", "b") for i in range(9)))
    serve(queue)
    queue.add(request("a1", "a"))
    assert [serve(queue)[0] for _ in range(10)] == [*"bbbbbbbbb", "a"]


def test_an_empty_level_forgets() -> None:
    queue = filled(request("a0", "a", tokens=100))
    serve(queue)
    queue.add(request("a1", "a"))
    queue.add(request("b0", "b"))
    assert serve(queue) == "a1"


def test_remembered_keys_are_bounded() -> None:
    queue = filled(request("stays", "stays", tokens=10_000), request("next", "stays"))
    serve(queue)
    for i in range(MAX_IDLE_KEYS + 10):
        queue.add(request(f"r{i}", str(i)))
        serve(queue)
    queue.check([])


def test_preempted_request_keeps_its_place() -> None:
    first, second = request("first"), request("second")
    queue = filled(first, second)
    queue.take(first)
    queue.add(request("third"))
    queue.put_back(first)
    assert [serve(queue) for _ in range(3)] == ["first", "second", "third"]


def test_computing_again_is_free() -> None:
    again, other = request("again", "a", tokens=10), request("other", "b", tokens=10)
    queue = filled(again, other)
    service = queue.rank(other)[1]
    for _ in range(2):  # preempted once
        queue.take(again)
        queue.charge(again, 10)
        queue.put_back(again)
    assert queue.rank(again)[1] - service == 10


def test_cached_tokens_are_free_and_outputs_count_more() -> None:
    r = request("r", tokens=10)
    queue = filled(r)
    queue.take(r)
    r.computed_tokens = 6
    queue.charge(r, 10)
    r.computed_tokens = 10
    queue.charge(r, 13)
    assert queue.rank(r)[1] == 4 + 3 * OUTPUT_WEIGHT


@settings(max_examples=80, deadline=None)
@given(
    prompts=st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(1, 40), min_size=1, max_size=20), min_size=2
    )
)
def test_backlogged_keys_stay_within_one_request(prompts: dict[str, list[int]]) -> None:
    """Whoever is served has the least service, so nobody gets further ahead than one request."""
    queue = filled(
        *(
            request(f"{key}{i}", key, tokens=tokens)
            for key, sizes in prompts.items()
            for i, tokens in enumerate(sizes)
        )
    )
    left = {key: list(sizes) for key, sizes in prompts.items()}
    served = dict.fromkeys(prompts, 0)
    while all(left.values()):
        key = serve(queue)[0]
        served[key] += left[key].pop(0)
        queue.check([])
        assert max(served.values()) - min(served.values()) <= 40
