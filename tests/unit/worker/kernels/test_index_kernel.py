import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference import index_scores, select_top
from worker.kernels.reference.index import WORKSPACE_BYTES


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(st.integers(-2, 2), min_size=6, max_size=6), st.integers(0, 6)),
        min_size=1,
        max_size=4,
    ),
    k=st.integers(1, 8),
)
def test_takes_the_best_visible_entries_and_the_lowest_index_on_ties(
    rows: list[tuple[list[int], int]], k: int
) -> None:
    scores = torch.tensor([values for values, _ in rows], dtype=torch.float32)
    visible = torch.tensor([count for _, count in rows])
    for chosen, (values, count) in zip(select_top(scores, visible, k).tolist(), rows, strict=True):
        best = sorted(range(count), key=lambda i: (-values[i], i))[:k]
        assert [i for i in chosen if i >= 0] == sorted(best)
        assert chosen == sorted(best) + [-1] * (min(k, 6) - len(best))


def test_scores_that_are_not_numbers_select_nothing_out_of_sight() -> None:
    chosen = select_top(torch.full((1, 5), float("nan")), torch.tensor([2]), 3)
    assert all(index < 2 for index in chosen.flatten().tolist())


def test_rows_that_see_nothing_yet_select_nothing() -> None:
    assert select_top(torch.empty(3, 0), torch.zeros(3, dtype=torch.long), 5).shape == (3, 0)


class LargestTensor(TorchDispatchMode):
    """Watches what operations return."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.nbytes = max(self.nbytes, out.numel() * out.itemsize)
        return out


def test_heads_of_a_million_token_context_are_scored_a_few_pages_at_a_time() -> None:
    g = torch.Generator().manual_seed(1)
    pages, table = torch.randn(50, 64, 16, generator=g), torch.randint(50, (3907,), generator=g)
    query, weights = torch.randn(1, 8, 64, 16, generator=g), torch.randn(1, 8, 64, generator=g)
    with LargestTensor() as largest:
        scores = index_scores(query, weights, EntryPool(pages), table[None], 250_000)
    assert largest.nbytes <= WORKSPACE_BYTES < 4 * 8 * 64 * 250_000 / 8
    keys = pages[table].flatten(0, 1)[:250_000]
    expected = torch.einsum("rh,rhn->rn", weights[0], (query[0] @ keys.T).relu())
    torch.testing.assert_close(scores[0], expected, rtol=1e-4, atol=1e-4)


def test_scores_follow_the_block_table() -> None:
    g = torch.Generator().manual_seed(0)
    pages = torch.randn(6, 4, 8, generator=g)
    table = torch.tensor([[5, 2, 0], [1, 3, 4]])
    query, weights = torch.randn(2, 3, 7, 8, generator=g), torch.randn(2, 3, 7, generator=g)
    scores = index_scores(query, weights, EntryPool(pages), table, 10)
    assert scores.shape == (2, 3, 10)
    for b, r, j in [(0, 0, 0), (0, 2, 9), (1, 1, 4), (1, 2, 7)]:
        key = pages[table[b, j // 4], j % 4]
        expected = (weights[b, r] * (query[b, r] @ key).relu()).sum()
        torch.testing.assert_close(scores[b, r, j], expected)
