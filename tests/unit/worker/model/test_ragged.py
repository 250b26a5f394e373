from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.v4 import ENGINE, FLASH, GREEDY, SMALL

from worker.batch import ScheduledSequence
from worker.config import EngineConfig
from worker.model.ragged import RaggedBatch, lay_out


def chunk(slot: int, start: int, count: int) -> ScheduledSequence:
    pages = [100 * slot + i for i in range(-(-(start + count) // SMALL.page_tokens))]
    return ScheduledSequence(str(slot), [7] * count, start, pages, slot, GREEDY, None)


def source_positions(batch: RaggedBatch, starts: list[int], ring: int) -> list[tuple[int, int]]:
    """The (sequence, position) that each source row holds; position -1 where it holds none."""
    rows = list(zip(batch.owner.tolist(), batch.positions.tolist(), strict=True))
    for sequence, start in enumerate(starts):
        last = {p % ring: p for p in range(max(0, start - ring), start)}
        rows += [(sequence, last.get(at, -1)) for at in range(ring)]
    return rows


def ring_positions(spans: list[tuple[int, int]], ring: int) -> list[tuple[int, int]]:
    """The (sequence, position) in each row of all slots' rings, once the chunks are there."""
    rows = []
    for slot, (start, count) in enumerate(spans):
        last = {p % ring: p for p in range(max(0, start + count - ring), start + count)}
        rows += [(slot, last.get(at, -1)) for at in range(ring)]
    return rows


def assert_seen(batch: RaggedBatch, rows: list[tuple[int, int]]) -> None:
    """Each token sees the positions of its window, where `rows` says what each row holds."""
    for t, (owner, position) in enumerate(
        zip(batch.owner.tolist(), batch.positions.tolist(), strict=True)
    ):
        seen = [rows[r] for r in batch.window_rows[t].tolist() if r >= 0]
        first = max(0, position - SMALL.sliding_window + 1)
        assert seen == [(owner, p) for p in range(first, position + 1)]


chunks = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(chunks)
def test_every_token_sees_exactly_its_window(spans: list[tuple[int, int]]) -> None:
    batch = lay_out([chunk(i, *span) for i, span in enumerate(spans)], SMALL, ENGINE)
    rows = source_positions(batch, [start for start, _ in spans], SMALL.sliding_window)
    if batch.overwrites_unseen:
        assert all(count == 1 for _, count in spans)
        rows = ring_positions(spans, SMALL.sliding_window)
    assert_seen(batch, rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), min_size=1, max_size=4))
def test_short_chunks_overwrite_nothing_they_see(spans: list[tuple[int, int]]) -> None:
    engine = replace(ENGINE, draft_tokens=3)
    batch = lay_out([chunk(i, *span) for i, span in enumerate(spans)], SMALL, engine)
    assert batch.overwrites_unseen
    assert_seen(batch, ring_positions(spans, SMALL.sliding_window + 3))


@settings(max_examples=60, deadline=None)
@given(chunks, st.sampled_from([4, 32]))
def test_each_entry_is_finished_once_from_its_own_tokens(
    spans: list[tuple[int, int]], ratio: int
) -> None:
    batch = lay_out([chunk(i, *span) for i, span in enumerate(spans)], SMALL, ENGINE)
    emission = batch.emissions[ratio]
    reach = emission.tail.size
    rows = source_positions(batch, [start for start, _ in spans], reach)
    expected, stored = [], []
    for slot, (start, count) in enumerate(spans):
        for entry in range(start // ratio, (start + count) // ratio):
            stop = (entry + 1) * ratio
            expected.append([(slot, p) if p >= 0 else None for p in range(stop - reach, stop)])
            page, within = divmod(entry, SMALL.page_entries(ratio))
            stored.append((100 * slot + page) * SMALL.page_entries(ratio) + within)
    rows_of = [[rows[r] if r < len(rows) else None for r in e] for e in emission.rows.tolist()]
    assert rows_of == expected
    assert emission.stored_at.tolist() == stored


@settings(max_examples=60, deadline=None)
@given(chunks)
def test_the_ring_keeps_the_last_tokens(spans: list[tuple[int, int]]) -> None:
    batch = lay_out([chunk(i, *span) for i, span in enumerate(spans)], SMALL, ENGINE)
    ring = batch.window
    kept = {
        (at // ring.size, int(batch.positions[row]))
        for row, at in zip(ring.kept_rows.tolist(), ring.kept_at.tolist(), strict=True)
    }
    expected = {
        (slot, p)
        for slot, (start, count) in enumerate(spans)
        for p in range(max(start, start + count - ring.size), start + count)
    }
    assert kept == expected
    assert len(set(ring.kept_at.tolist())) == len(expected)


@settings(max_examples=60, deadline=None)
@given(chunks, st.integers(1, 1 << 20))
def test_tiles_cover_every_row_once_in_order(spans: list[tuple[int, int]], budget: int) -> None:
    engine = replace(ENGINE, attention_tile_bytes=budget)
    batch = lay_out([chunk(i, *span) for i, span in enumerate(spans)], SMALL, engine)
    covered = [row for tile in batch.tiles for row in range(tile.rows.start, tile.rows.stop)]
    assert covered == list(range(len(batch.positions)))
    for tile in batch.tiles:
        owners = set(batch.owner[tile.rows].tolist())
        assert owners == set(range(tile.sequences.start, tile.sequences.stop))
        rows = [int((batch.owner[tile.rows] == owner).sum()) for owner in owners]
        assert len(set(rows)) == 1, "equally many rows of each"


def test_equally_long_chunks_share_a_tile() -> None:
    batch = lay_out([chunk(i, 9 * i, 3 if i < 5 else 7) for i in range(7)], SMALL, ENGINE)
    assert [tile.sequences for tile in batch.tiles] == [slice(0, 5), slice(5, 7)]


def test_a_million_token_context_stays_within_its_workspace() -> None:
    config, engine = FLASH, EngineConfig(attention_tile_bytes=1 << 30)
    start = 1_000_000
    sequence = ScheduledSequence(
        "long", [1] * 64, start, list(range(3910)), 0, GREEDY, sample_position=None
    )
    batch = lay_out([sequence], config, engine)
    entries = (start + 64) // 4
    rows = max(tile.rows.stop - tile.rows.start for tile in batch.tiles)
    assert 1 < rows < 64
    assert 12 * rows * entries < 1 << 30
