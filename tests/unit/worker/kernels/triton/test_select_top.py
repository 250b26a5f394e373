"""The best of each row, against sorting by Python; every result is exact."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import triton as kernels
from worker.kernels.triton.select_top import TILES, unsupported
from worker.model.tiny import TINY

lenient = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SPECIAL = [0.0, -0.0, torch.inf, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, 1.0000001]


def expected(scores: torch.Tensor, visible: torch.Tensor, k: int) -> list[list[int]]:
    found = []
    for row, count in zip(scores.tolist(), visible.tolist(), strict=True):
        there = [i for i in range(min(count, len(row))) if row[i] != -torch.inf]
        best = sorted(there, key=lambda i: (row[i] == row[i], -row[i], i))[:k]
        found.append(sorted(best) + [-1] * (min(k, len(row)) - len(best)))
    return found


def check(device: str, scores: torch.Tensor, visible: torch.Tensor, k: int) -> None:
    found = kernels.select_top(scores.to(device), visible.to(device), k)
    assert found.dtype == torch.int64
    assert found.tolist() == expected(scores, visible, k)


@lenient
@given(
    rows=st.lists(
        st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats(width=32)), max_size=40), max_size=4
    ),
    width=st.integers(0, 40),
    counts=st.lists(st.integers(0, 50), min_size=4, max_size=4),
    k=st.integers(0, 45),
)
def test_any_numbers_are_ranked_and_equals_go_to_the_lowest_index(
    device: str, rows: list[list[float]], width: int, counts: list[int], k: int
) -> None:
    full = [(row + [float(i % 3) for i in range(width)])[:width] for row in rows]
    scores = torch.tensor(full, dtype=torch.float32).view(len(rows), width)
    check(device, scores, torch.tensor(counts[: len(rows)], dtype=torch.long), k)


@pytest.mark.parametrize("width", [TILES[0] - 1, TILES[0] + 1, TILES[1], TILES[1] + 1, 40_000])
@pytest.mark.parametrize("k", [1, 500, 512])
def test_rows_of_one_tile_and_of_many_are_ranked_alike(device: str, width: int, k: int) -> None:
    g = torch.Generator().manual_seed(width + k)
    distinct = torch.randn(width, generator=g)
    tied = distinct.mul(2).round()
    worst_first = torch.arange(width).float()
    scores = torch.stack((distinct, tied, worst_first, -worst_first, torch.zeros(width)))
    visible = torch.tensor([width, width - 1, width, width // 2, width])
    check(device, scores, visible, k)


def test_more_tiles_than_one_pass_can_join_are_ranked(device: str) -> None:
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(1, 262_144, generator=g).mul(1_000).round()
    check(device, scores, torch.tensor([262_100]), 512)


def test_a_row_that_sees_nothing_selects_nothing(device: str) -> None:
    scores = torch.randn(3, 9_000)
    check(device, scores, torch.tensor([0, 1, 9_000]), 20)
    none = kernels.select_top(torch.empty(3, 0, device=device), torch.zeros(3).to(device), 5)
    assert none.shape == (3, 0)


def test_scores_that_are_not_numbers_come_first_and_stay_in_sight(device: str) -> None:
    scores = torch.randn(1, 9_000)
    scores[0, [3, 8_500, 8_990]] = torch.nan
    check(device, scores, torch.tensor([8_600]), 2)
    check(device, torch.full((1, 9_000), torch.nan), torch.tensor([8_600]), 3)


def test_unseen_scores_are_not_read(device: str) -> None:
    scores = torch.full((2, 300), torch.nan)
    scores[0, :3] = torch.tensor([1.0, 3.0, 2.0])
    check(device, scores, torch.tensor([3, 0]), 2)


def test_rows_with_gaps_between_them_are_ranked(device: str) -> None:
    scores = torch.randn(4, 101)
    found = kernels.select_top(scores.to(device)[:, :99], torch.full((4,), 99).to(device), 7)
    assert found.tolist() == expected(scores[:, :99], torch.full((4,), 99), 7)


@pytest.mark.gpu
def test_a_thousand_repeats_choose_alike() -> None:
    scores = torch.randn(64, 32_768, device="cuda").bfloat16().float()
    visible = torch.full((64,), 32_768, device="cuda")
    first = kernels.select_top(scores, visible, 512)
    for _ in range(1_000):
        assert torch.equal(kernels.select_top(scores, visible, 512), first)


def test_more_than_a_pass_can_keep_is_refused() -> None:
    assert unsupported(replace(TINY, index_topk=4_096)) is None
    assert unsupported(replace(TINY, index_topk=4_097)) == "index_topk is 4097, above 4096"
