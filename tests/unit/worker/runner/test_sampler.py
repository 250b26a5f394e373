import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.request import SamplingParams
from worker.runner.sampler import NO_TOKEN, exponentials, sample

VOCAB = 40
CPU = torch.device("cpu")


def params(**changes: object) -> SamplingParams:
    return SamplingParams(**({"max_tokens": 1} | changes))  # type: ignore[arg-type]


def draw(logits: list[float], count: int = 400, **changes: object) -> list[int]:
    """Tokens sampled from one row at positions 0, 1, ..."""
    rows = torch.tensor(logits).expand(count, -1)
    return [t.token_id for t in sample(rows, [params(**changes)] * count, range(count))]


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    assert set(draw([0.0, 3.0, 3.0, 1.0], 3, temperature=0.0)) == {1}


def test_logprobs_are_of_the_raw_distribution() -> None:
    (token,) = sample(
        torch.tensor([[0.0, 0.0, math.log(2.0)]]),
        [params(temperature=0.0, logit_bias={0: 50.0}, logprobs=2)],
        [0],
    )
    assert token.token_id == 0
    assert token.logprob == pytest.approx(math.log(0.25))
    assert [i for i, _ in token.top] == [2, 0]
    assert token.top[0][1] == pytest.approx(math.log(0.5))


def test_no_probabilities_unless_asked_for() -> None:
    unasked, without_top = sample(torch.zeros(2, 4), [params(), params(logprobs=0)], [0, 0])
    assert (unasked.logprob, unasked.top) == (None, [])
    assert without_top.logprob == pytest.approx(-math.log(4))
    assert without_top.top == []


def test_greedy_rows_keep_to_themselves_among_others() -> None:
    rows = torch.randn(6, VOCAB, generator=torch.Generator().manual_seed(1))
    greedy, warm = params(temperature=0.0), params(temperature=1.5, seed=3)
    sampling = [greedy, warm, greedy, params(temperature=0.0, logit_bias={2: 100.0}), warm, greedy]
    together = sample(rows, sampling, range(6))
    alone = [sample(rows[r : r + 1], [p], [r])[0] for r, p in enumerate(sampling)]
    assert together == alone


def test_frequencies_follow_the_probabilities() -> None:
    tokens = draw([math.log(p) for p in (0.1, 0.2, 0.7)], 4000)
    shares = [tokens.count(i) / len(tokens) for i in range(3)]
    assert shares == pytest.approx([0.1, 0.2, 0.7], abs=0.03)


def test_temperature_sharpens() -> None:
    tokens = draw([0.0, 1.0], 4000, temperature=0.5)
    assert tokens.count(1) / 4000 == pytest.approx(1 / (1 + math.exp(-2)), abs=0.03)


def test_top_k_keeps_the_lowest_ids_of_equals() -> None:
    assert set(draw([1.0, 2.0, 1.0, 1.0], top_k=2)) == {0, 1}


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    logits = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert set(draw(logits, top_p=0.7)) == {0, 1}
    assert set(draw(logits, top_p=0.01)) == {0}


def test_min_p_is_relative_to_the_most_likely() -> None:
    logits = [math.log(p) for p in (0.6, 0.3, 0.1)]
    assert set(draw(logits, min_p=0.4)) == {0, 1}


def test_bias_can_ban_and_force() -> None:
    assert 1 not in draw([0.0, 0.0], logit_bias={1: -100.0})
    assert set(draw([0.0, 0.0], logit_bias={1: 100.0})) == {1}


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**20))
def test_exponentials_are_positive_finite_and_pure(seed: int, position: int) -> None:
    numbers = exponentials(seed, position, VOCAB, CPU)
    assert bool(((numbers > 0) & numbers.isfinite()).all())
    assert torch.equal(numbers, exponentials(seed, position, VOCAB, CPU))
    assert torch.equal(numbers[:7], exponentials(seed, position, 7, CPU))


def test_exponentials_are_distributed_as_such_across_ids_and_across_positions() -> None:
    across_ids = exponentials(1, 2, 20_000, CPU)
    across_positions = torch.cat([exponentials(1, i, 2, CPU)[1:] for i in range(20_000)])
    for numbers in (across_ids, across_positions):
        expected = 1 - torch.exp(-numbers.double().sort().values)
        seen = torch.arange(1, len(numbers) + 1) / len(numbers)
        assert (expected - seen).abs().max() < 1.63 / len(numbers) ** 0.5  # Kolmogorov, 1 %


def test_neighbouring_positions_and_seeds_share_nothing() -> None:
    rows = [exponentials(s, p, 20_000, CPU) for s, p in ((5, 9), (5, 10), (6, 9), (9, 5))]
    correlations = torch.corrcoef(torch.stack(rows)) - torch.eye(4)
    assert correlations.abs().max() < 0.03


def test_rounding_of_the_logits_does_not_change_the_draws() -> None:
    """Another batch shape gives logits that differ in their last bits."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(50_000, generator=generator) * 3
    noise = torch.randn(300, 50_000, generator=generator) * 2e-6
    sampling = [params(seed=11)] * 300
    exact = sample(logits.expand(300, -1), sampling, range(300))
    rounded = sample(logits + noise, sampling, range(300))
    assert [t.token_id for t in exact] == [t.token_id for t in rounded]


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 12.0])
def test_top_p_of_a_large_vocabulary_keeps_what_a_whole_sort_keeps(spread: float) -> None:
    logits = torch.randn(30_000, generator=torch.Generator().manual_seed(5)) * spread
    probs, ids = logits.double().softmax(0).sort(descending=True, stable=True)
    nucleus = set(ids[probs.cumsum(0) - probs < 0.8].tolist())
    drawn = draw(logits.tolist(), 300, top_p=0.8)
    assert set(drawn) <= nucleus
    assert len(set(drawn)) >= min(50, len(nucleus))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_row_is_sampled_the_same_alone_and_in_a_crowd(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(count, VOCAB, generator=generator) * 4
    sampling = [
        params(
            seed=data.draw(st.integers(0, 2**64 - 1)),
            temperature=data.draw(st.sampled_from([0.0, 1e-6, 0.3, 1.0, 2.0])),
            top_p=data.draw(st.sampled_from([0.1, 0.9, 1.0])),
            top_k=data.draw(st.sampled_from([0, 1, 5, 1000])),
            min_p=data.draw(st.sampled_from([0.0, 0.2, 1.0])),
            logprobs=data.draw(st.sampled_from([None, 0, 3, 20])),
        )
        for _ in range(count)
    ]
    positions = data.draw(st.lists(st.integers(0, 99), min_size=count, max_size=count))
    crowd = sample(logits, sampling, positions)
    for row in range(count):
        alone = sample(logits[row : row + 1], [sampling[row]], [positions[row]])[0]
        assert alone == crowd[row]
        assert len(crowd[row].top) == (sampling[row].logprobs or 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"top_p": 0.5},
        {"top_k": 2, "min_p": 0.1},
        {"logit_bias": {2: 5.0}, "logprobs": 2},
    ],
)
def test_a_row_that_is_not_finite_has_no_token_and_harms_no_other(
    bad: float, changes: dict[str, object]
) -> None:
    logits = torch.zeros(2, 40)
    logits[0, 7] = bad
    first, second = sample(logits, [params(**changes)] * 2, [5, 5])
    assert (first.token_id, first.logprob) == (NO_TOKEN, None)
    assert second == sample(logits[1:], [params(**changes)], [5])[0]


def test_one_certain_token_is_always_drawn() -> None:
    logits = [-1e4] * 5
    logits[3] = 0.0
    assert set(draw(logits, top_p=0.5)) == {3}
    assert set(draw(logits)) == {3}


def only(*ids: int, count: int = 16) -> bytes:
    """A mask that allows `ids`."""
    return sum(1 << i for i in ids).to_bytes(count // 8, "little")


def test_grammar_bounds_greedy_and_sampled_tokens_of_its_row() -> None:
    logits = torch.arange(12.0).expand(3, 12).clone()
    masks = [only(2, 7), None, only(3)]
    greedy = sample(logits, [params(temperature=0.0, logprobs=0)] * 3, [0, 0, 0], masks)
    assert [t.token_id for t in greedy] == [7, 11, 3]
    assert greedy[0].logprob == pytest.approx(float(logits[0].log_softmax(-1)[7]))
    for seed in range(20):
        warm = params(temperature=2.0, seed=seed, top_p=0.9)
        free = sample(logits, [warm] * 3, [5, 5, 5])
        bound = sample(logits, [warm] * 3, [5, 5, 5], masks)
        assert bound[0].token_id in (2, 7)
        assert bound[1] == free[1]
        assert bound[2].token_id == 3


def test_grammar_overrules_bias() -> None:
    biased = params(temperature=0.0, logit_bias={3: -100.0, 5: 100.0})
    (token,) = sample(torch.zeros(1, 12), [biased], [0], [only(3)])
    assert token.token_id == 3


def test_ids_beyond_the_mask_are_not_allowed() -> None:
    (token,) = sample(torch.arange(40.0)[None], [params(temperature=0.0)], [0], [only(1, 2)])
    assert token.token_id == 2
