"""Hyper-connections against their formulas in float64.

Products of float32 streams err by their additions alone, less than 2^-22 of the sum of magnitudes;
those of bfloat16 streams by 2^-16 more, the two parts' rest of each weight. Weights and sums of
float32 streams then lie within 2^-18, weights of bfloat16 ones within 2^-14. Results in bfloat16
add half a unit in the last place, 2^-8, or a whole one under the interpreter, which cuts where a
GPU rounds.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.kernels import triton as kernels
from worker.kernels.triton.hyper_connection import unsupported
from worker.kernels.triton.stream_advance import advance
from worker.kernels.triton.stream_projection import project
from worker.model.tiny import TINY

LIMITS = {"eps": 1e-6, "norm_eps": 1e-6}
Weights = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

on_any_shape = settings(
    deadline=None, max_examples=7, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
tokens_drawn = st.sampled_from([1, 2, 15, 16, 17, 130])
n_drawn = st.sampled_from([2, 4])
width_drawn = st.sampled_from([32, 64, 96, 160])
dtype_drawn = st.sampled_from([torch.float32, torch.bfloat16])


@pytest.fixture(autouse=True)
def new_tensors_are_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what `empty` gives
    yield
    torch.use_deterministic_algorithms(False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn_weights(n: int, width: int, columns: int, device: str) -> Weights:
    fn = noise(columns, n * width, seed=1) * (n * width) ** -0.5
    scale = noise(3, seed=3) if columns > n else noise(1, seed=3)
    return fn.to(device), noise(columns, seed=2).to(device), scale.to(device)


def mixes_float64(streams: torch.Tensor, fn: torch.Tensor) -> torch.Tensor:
    flat = streams.double().flatten(1)
    return flat / (flat.square().mean(1, keepdim=True) + 1e-6).sqrt() @ fn.double().T


def in_float64(streams: torch.Tensor, weights: Weights) -> Weights:
    n = streams.shape[1]
    fn, base, scale = (w.double() for w in weights)
    first, second, third = mixes_float64(streams, fn).split([n, n, n * n], 1)
    pre = torch.sigmoid(first * scale[0] + base[:n]) + 1e-6
    post = 2 * torch.sigmoid(second * scale[1] + base[n : 2 * n])
    comb = (third * scale[2] + base[2 * n :]).view(-1, n, n).softmax(2) + 1e-6
    comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
    for _ in range(19):
        comb = comb / (comb.sum(2, keepdim=True) + 1e-6)
        comb = comb / (comb.sum(1, keepdim=True) + 1e-6)
    return torch.einsum("tn,tnd->td", pre, streams.double()), post, comb


def assert_rounded(result: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    """`dtype` is the streams'; the result's own may be wider."""
    bound = 2.0**-14 if dtype == torch.bfloat16 else 2.0**-18
    unit = 0.0
    if result.dtype == torch.bfloat16:
        unit = 2.0**-8 if result.is_cuda else 2.0**-7
    torch.testing.assert_close(result.double(), exact, rtol=bound + unit, atol=bound)


@on_any_shape
@given(tokens_drawn, n_drawn, width_drawn, dtype_drawn)
def test_in_follows_its_formula(
    device: str, tokens: int, n: int, width: int, dtype: torch.dtype
) -> None:
    streams = (3 * noise(tokens, n, width)).to(device, dtype)
    weights = drawn_weights(n, width, n * (n + 2), device)
    results = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    assert [r.dtype for r in results] == [dtype, torch.float32, torch.float32]
    for result, exact in zip(results, in_float64(streams, weights), strict=True):
        assert_rounded(result, exact, dtype)


@on_any_shape
@given(tokens_drawn, n_drawn, width_drawn, dtype_drawn)
def test_out_follows_its_formula(
    device: str, tokens: int, n: int, width: int, dtype: torch.dtype
) -> None:
    y, streams = noise(tokens, width, seed=1), noise(tokens, n, width)
    y, streams = y.to(device, dtype), streams.to(device, dtype)
    post, comb = noise(tokens, n, seed=2).to(device), noise(tokens, n, n, seed=3).to(device)
    mixed = torch.einsum("tjk,tjd->tkd", comb.double(), streams.double())
    exact = mixed + post.double().unsqueeze(2) * y.double().unsqueeze(1)
    assert_rounded(kernels.hyper_connection_out(y, streams, post, comb), exact, dtype)


@on_any_shape
@given(tokens_drawn, n_drawn, width_drawn, dtype_drawn)
def test_head_follows_its_formula(
    device: str, tokens: int, n: int, width: int, dtype: torch.dtype
) -> None:
    streams = (3 * noise(tokens, n, width)).to(device, dtype)
    weights = drawn_weights(n, width, n, device)
    fn, base, scale = (w.double() for w in weights)
    pre = torch.sigmoid(mixes_float64(streams, fn) * scale + base) + 1e-6
    exact = torch.einsum("tn,tnd->td", pre, streams.double())
    assert_rounded(kernels.hyper_connection_head(streams, *weights, **LIMITS), exact, dtype)


@on_any_shape
@given(tokens_drawn, n_drawn, width_drawn, dtype_drawn)
def test_next_is_out_and_then_in(
    device: str, tokens: int, n: int, width: int, dtype: torch.dtype
) -> None:
    y, streams = noise(tokens, width, seed=1), 3 * noise(tokens, n, width)
    y, streams = y.to(device, dtype), streams.to(device, dtype)
    post, comb = noise(tokens, n, seed=2).to(device), noise(tokens, n, n, seed=3).to(device)
    weights = drawn_weights(n, width, n * (n + 2), device)
    between, *opened = kernels.hyper_connection_next(
        y, streams, post, comb, *weights, iterations=20, **LIMITS
    )
    assert torch.equal(between, kernels.hyper_connection_out(y, streams, post, comb))
    for result, exact in zip(opened, in_float64(between, weights), strict=True):
        assert_rounded(result, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_at_full_width_are_within_their_bound(device: str, dtype: torch.dtype) -> None:
    streams = noise(3, 4, 4096).to(device, dtype)
    fn, _, _ = drawn_weights(4, 4096, 24, device)
    flat = streams.double().flatten(1)
    partials = project(streams, fn)
    sums = partials.double().sum(0).T  # [T, 25]
    error = (sums[:, :24] - flat @ fn.double().T).abs()
    bound = 2.0**-22 + (2.0**-16 if dtype == torch.bfloat16 else 0.0)
    assert (error <= bound * (flat.abs() @ fn.double().abs().T)).all()
    assert error.max() < 2.0**-14  # of products near one: errors of either sign do not add up
    torch.testing.assert_close(sums[:, 24], flat.square().sum(1), rtol=2.0**-22, atol=0)


def test_many_tokens_take_the_large_tiles(device: str) -> None:
    y, streams = noise(1030, 32, seed=1).to(device), noise(1030, 2, 32).to(device)
    post, comb = noise(1030, 2, seed=2).to(device), noise(1030, 2, 2, seed=3).to(device)
    fn, _, _ = drawn_weights(2, 32, 8, device)
    between, partials = advance(y, streams, post, comb, fn)
    mixed = torch.einsum("tjk,tjd->tkd", comb, streams) + post.unsqueeze(2) * y.unsqueeze(1)
    torch.testing.assert_close(between, mixed)
    exact = between.double().flatten(1) @ fn.double().T
    for sums in (partials.sum(0).T, project(between, fn).sum(0).T):
        torch.testing.assert_close(sums[:, :8].double(), exact, rtol=0, atol=2.0**-18)


def test_without_tokens_there_is_nothing(device: str) -> None:
    streams = torch.empty(0, 4, 64, device=device)
    weights = drawn_weights(4, 64, 24, device)
    x, post, comb = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    both = kernels.hyper_connection_next(x, streams, post, comb, *weights, iterations=20, **LIMITS)
    assert [tuple(t.shape) for t in both] == [(0, 4, 64), (0, 64), (0, 4), (0, 4, 4)]
    assert [tuple(t.shape) for t in (x, post, comb)] == [(0, 64), (0, 4), (0, 4, 4)]
    assert kernels.hyper_connection_out(x, streams, post, comb).shape == (0, 4, 64)
    head = drawn_weights(4, 64, 4, device)
    assert kernels.hyper_connection_head(streams, *head, **LIMITS).shape == (0, 64)


def test_large_logits_neither_overflow_nor_vanish(device: str) -> None:
    streams = noise(5, 4, 32).to(device)
    fn, base, scale = drawn_weights(4, 32, 24, device)
    weights = fn, base, 300 * scale
    results = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    for result, exact in zip(results, in_float64(streams, weights), strict=True):
        torch.testing.assert_close(result.double(), exact, rtol=2.0**-10, atol=2.0**-14)


def test_a_token_that_is_not_a_number_leaves_the_others_alone(device: str) -> None:
    streams = noise(3, 4, 64).to(device)
    weights = drawn_weights(4, 64, 24, device)
    clean = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    streams[1, 2, 3] = torch.nan
    marred = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    for before, after in zip(clean, marred, strict=True):
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        assert after[1].isnan().any()


def test_the_same_input_always_gives_the_same_bits(device: str) -> None:
    streams = noise(20, 4, 96).to(device, torch.bfloat16)
    weights = drawn_weights(4, 96, 24, device)
    first = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
    for _ in range(1000 if device == "cuda" else 2):
        again = kernels.hyper_connection_in(streams, *weights, iterations=20, **LIMITS)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_number_of_streams_without_a_kernel_is_refused() -> None:
    assert unsupported(TINY) is None
    assert unsupported(replace(TINY, hc_mult=3)) == "hc_mult must be 1, 2 or 4, not 3"
