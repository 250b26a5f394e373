"""The manager alone, without a scheduler: steps are played by setting `computed_tokens`."""

from worker.cache.manager import CacheManager
from worker.request import Request, SamplingParams

PAGE = 4


def manager(*, pages: int = 8, state_slots: int = 4) -> CacheManager:
    return CacheManager(pages=pages, state_slots=state_slots, page_tokens=PAGE)


def request(name: str, tokens: list[int], salt: bytes = b"") -> Request:
    return Request(name, tokens, SamplingParams(max_tokens=8), cache_salt=salt)


def compute(cache: CacheManager, r: Request, until: int) -> None:
    """Play one step that ends at `until`."""
    assert cache.extend(r, until)
    kept = cache.reserve_snapshot(r, until) if until % PAGE == 0 else None
    r.computed_tokens = until
    cache.commit(r, kept)


def run(cache: CacheManager, r: Request, *stops: int) -> None:
    admission = cache.admit(r, reuse=True)
    assert admission is not None
    cache.unpin(admission.snapshot)
    for stop in stops:
        compute(cache, r, stop)


def test_a_repeated_prompt_hits_up_to_the_last_snapshot() -> None:
    cache = manager()
    first = request("a", list(range(10)))
    run(cache, first, 8, 10)
    cache.release(first)
    second = request("b", list(range(10)))
    run(cache, second)
    assert second.computed_tokens == 8
    cache.check([second])


def test_a_hit_leaves_one_token_to_compute() -> None:
    cache = manager()
    first = request("a", list(range(8)))
    run(cache, first, 4, 8)
    cache.release(first)
    second = request("b", list(range(8)))
    run(cache, second)
    assert second.computed_tokens == 4


def test_pages_without_a_snapshot_are_no_hit_but_a_branch() -> None:
    cache = manager()
    first = request("a", list(range(9)))
    run(cache, first, 9)  # no step ended on a page boundary
    cache.release(first)
    second = request("b", list(range(9)))
    admission = cache.admit(second, reuse=True)
    assert admission is not None
    assert (second.computed_tokens, admission.snapshot) == (0, None)
    assert admission.branch_tokens == 8


def test_another_salt_misses() -> None:
    cache = manager()
    first = request("a", list(range(10)), salt=b"x")
    run(cache, first, 8, 10)
    second = request("b", list(range(10)), salt=b"y")
    run(cache, second)
    assert second.computed_tokens == 0


def test_running_sequences_share_pages() -> None:
    cache = manager()
    first = request("a", list(range(10)))
    run(cache, first, 8, 10)
    second = request("b", [*range(8), 90, 91])
    run(cache, second, 10)
    assert second.pages[:2] == first.pages[:2]
    assert second.pages[2] != first.pages[2]
    cache.check([first, second])


def test_extends_wholly_or_not_at_all() -> None:
    cache = manager(pages=2)
    first = request("a", list(range(20)))
    run(cache, first)
    assert not cache.extend(first, 12)
    assert first.pages == []
    assert cache.extend(first, 8)


def test_admits_nothing_without_a_slot() -> None:
    cache = manager(state_slots=1)
    first, second = request("a", [1, 2]), request("b", [1, 2])
    run(cache, first)
    assert cache.admit(second, reuse=True) is None
    cache.check([first, second])


def test_evicting_a_page_frees_its_snapshot() -> None:
    cache = manager(pages=2, state_slots=2)
    first = request("a", list(range(8)))
    run(cache, first, 4, 8)
    cache.release(first)
    second = request("b", list(range(50, 58)))
    run(cache, second, 8)
    third = request("c", list(range(8)))
    run(cache, third)
    assert third.computed_tokens == 0
    cache.check([second, third])


def test_the_end_of_a_prefix_is_evicted_before_its_start() -> None:
    cache = manager(pages=3, state_slots=6)
    first = request("a", list(range(12)))
    run(cache, first, 4, 8, 12)
    cache.release(first)
    other = request("b", [99])
    run(cache, other, 1)  # takes one page
    again = request("c", list(range(12)))
    run(cache, again)
    assert again.computed_tokens == 8
