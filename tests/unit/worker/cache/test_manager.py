"""The manager alone, without a scheduler: steps are played by setting `computed_tokens`."""

from worker.cache.manager import CacheManager
from worker.request import Request, SamplingParams

PAGE = 4


def manager(
    *,
    pages: int = 8,
    state_slots: int = 4,
    snapshots: int = 4,
    interval: int = 1,
    reach: int | None = None,
) -> CacheManager:
    return CacheManager(
        pages=pages,
        state_slots=state_slots,
        snapshots=snapshots,
        page_tokens=PAGE,
        snapshot_interval_pages=interval,
        state_reach_tokens=reach,
    )


def request(name: str, tokens: list[int], salt: bytes = b"") -> Request:
    return Request(name, tokens, SamplingParams(max_tokens=8), cache_salt=salt)


def compute(cache: CacheManager, r: Request, until: int) -> None:
    """Play one step that ends at `until`."""
    assert cache.extend(r, until)
    kept = cache.reserve_snapshot(r, until)
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
    cache = manager(pages=2, snapshots=2)
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
    cache = manager(pages=3)
    first = request("a", list(range(12)))
    run(cache, first, 4, 8, 12)
    cache.release(first)
    other = request("b", [99])
    run(cache, other, 1)  # takes one page
    again = request("c", list(range(12)))
    run(cache, again)
    assert again.computed_tokens == 8


def test_snapshots_are_kept_at_multiples_of_the_interval() -> None:
    cache = manager(interval=2)
    first = request("a", list(range(18)))
    run(cache, first, 4, 8, 12, 16, 18)
    assert [cache.has_snapshot(first, n) for n in (4, 8, 12, 16)] == [False, True, False, True]


def test_snapshots_never_take_a_running_sequences_slot() -> None:
    cache = manager(state_slots=1, snapshots=0)
    first = request("a", list(range(9)))
    run(cache, first, 4, 8, 9)
    assert first.state_slot >= 0
    assert not cache.has_snapshot(first, 4)
    cache.release(first)
    second = request("b", [50])
    run(cache, second)
    assert second.state_slot >= 0
    cache.check([second])


def test_a_state_is_rebuilt_where_that_is_less_work() -> None:
    cache = manager(interval=0, reach=5)
    first = request("a", list(range(18)))
    run(cache, first, 18)
    second = request("b", list(range(18)))
    admission = cache.admit(second, reuse=True)
    assert admission is not None
    assert admission.snapshot is None
    assert (second.computed_tokens, cache.known_tokens(second)) == (16 - 5, 16)
    assert second.pages == first.pages[:4]
    cache.check([first, second])


def test_a_snapshot_nearer_than_the_reach_is_preferred() -> None:
    cache = manager(reach=5)
    first = request("a", list(range(18)))
    run(cache, first, 12, 18)
    second = request("b", list(range(18)))
    admission = cache.admit(second, reuse=True)
    assert admission is not None
    assert admission.snapshot is not None
    assert (second.computed_tokens, cache.known_tokens(second)) == (12, 16)
    cache.unpin(admission.snapshot)
    cache.check([first, second])


def test_a_prefix_shorter_than_the_reach_is_computed_from_its_start_over_shared_pages() -> None:
    cache = manager(interval=0, reach=9)
    first = request("a", list(range(9)))
    run(cache, first, 9)
    second = request("b", list(range(9)))
    run(cache, second)
    assert second.computed_tokens == 0
    assert second.pages == first.pages[:2]


def test_no_snapshot_is_kept_of_a_state_that_is_still_being_rebuilt() -> None:
    cache = manager(reach=7)
    first = request("a", list(range(18)))
    run(cache, first, 18)
    second = request("b", list(range(18)))
    run(cache, second)
    assert second.computed_tokens == 9
    assert cache.reserve_snapshot(second, 12) is None
    compute(cache, second, 16)
    assert cache.has_snapshot(second, 16)
    cache.check([first, second])
