from hypothesis import given
from hypothesis import strategies as st

from worker.cache.block_pool import BlockPool


def pool(size: int) -> tuple[BlockPool, list[int]]:
    evicted: list[int] = []
    return BlockPool(size, evicted.append), evicted


def test_gives_out_every_block_once() -> None:
    blocks, _ = pool(3)
    assert sorted(blocks.allocate() for _ in range(3)) == [0, 1, 2]  # type: ignore[type-var]
    assert blocks.allocate() is None


def test_a_released_block_is_given_out_again() -> None:
    blocks, _ = pool(1)
    block = blocks.allocate()
    assert block is not None
    blocks.release(block)
    assert blocks.allocate() == block


def test_shared_block_stays_until_the_last_release() -> None:
    blocks, _ = pool(1)
    block = blocks.allocate()
    assert block is not None
    blocks.acquire(block)
    blocks.release(block)
    assert blocks.allocate() is None
    blocks.release(block)
    assert blocks.allocate() == block


def test_evicts_the_least_recently_released_cached_block() -> None:
    blocks, evicted = pool(2)
    first, second = blocks.allocate(), blocks.allocate()
    assert first is not None
    assert second is not None
    for block in (first, second):
        blocks.cache(block)
    blocks.release(second)
    blocks.release(first)
    assert blocks.allocate() == second
    assert evicted == [second]


def test_prefers_free_blocks_to_eviction() -> None:
    blocks, evicted = pool(2)
    cached = blocks.allocate()
    assert cached is not None
    blocks.cache(cached)
    blocks.release(cached)
    assert blocks.allocate() != cached
    assert evicted == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["allocate", "acquire", "release", "cache"]), st.integers(0, 5))
    )
)
def test_counts_stay_right_under_any_use(steps: list[tuple[str, int]]) -> None:
    cached: set[int] = set()
    blocks = BlockPool(3, cached.discard)
    held: list[int] = []
    for action, choice in steps:
        if action == "allocate":
            block = blocks.allocate()
            assert (block is None) == (len(set(held)) == 3)
            if block is not None:
                assert block not in held
                held.append(block)
        elif held:
            block = held[choice % len(held)]
            if action == "acquire":
                blocks.acquire(block)
                held.append(block)
            elif action == "release":
                blocks.release(block)
                held.remove(block)
            else:
                blocks.cache(block)
                cached.add(block)
        blocks.check(held, cached)
