"""Pieces of the network: compiled they are what they are as they stand."""

import shutil
from collections.abc import Iterator

import pytest
import torch
from support.demo_toys import TOY_MODEL, echo, fresh

from worker.demo.batches import Batch, chunk, on_device
from worker.demo.fused import compile_pieces
from worker.demo.loop import candidates
from worker.demo.losses import losses
from worker.demo.parameters import prepared
from worker.demo.presets import Preset

PRESET = Preset(TOY_MODEL, 1, 512, 0.1, 0.1)


@pytest.fixture
def compiled() -> Iterator[None]:
    if shutil.which("g++") is None:
        pytest.skip("needs a compiler: apt-get install g++")
    compile_pieces(on=True)
    yield
    compile_pieces(on=False)


def descended(batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of a fresh model, and their gradients."""
    tensors = {n: t.requires_grad_() for n, t in fresh().tensors.items()}
    weights = prepared(tensors, TOY_MODEL, batch.frozen, compute=torch.float32, quantised=False)
    found = losses(
        weights, TOY_MODEL, batch.layout, batch.targets, want_draft=True, want_index=True
    )
    found.total(PRESET.draft_weight, PRESET.index_weight).backward()  # type: ignore[no-untyped-call]
    return found.each, {n: t.grad for n, t in tensors.items() if t.grad is not None}


@pytest.mark.storm  # compiling takes some minutes
@pytest.mark.filterwarnings("default")  # the compiler has some of its own
def test_compiled_losses_and_their_gradients_are_those_of_plain_ones(compiled: None) -> None:
    vocabulary = candidates(fresh(), PRESET, "cpu")
    rows = chunk(echo, 0, examples=20, step_tokens=512)[0]
    batch = on_device(rows, vocabulary, TOY_MODEL, 128, seed=9)
    quick, gradients = descended(batch)
    compile_pieces(on=False)
    plain, expected = descended(batch)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        largest = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4 * largest)
