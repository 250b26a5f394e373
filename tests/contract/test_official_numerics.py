"""`official` arithmetic, a layer at a time, against float64 formulas that round where training did.

Whole models cannot be compared in such coarse arithmetic: a flipped expert moves every later
logit. So the reference is given the inputs that each of our sublayers had, over a sequence computed
in chunks and then token by token. Between its roundings the reference is exact, ours is float32:
a value within a float32 error of a rounding's edge may go the other way, about one in a thousand.
Such a flip is at most one e4m3 step, 2**-3, of one of K >= 96 summands of a row.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.official_reference import OfficialReference
from support.oracle import model_on_disk, tokens
from support.v4 import ENGINE, SMALL, Sequences

from worker.model.hyper_connection import Residual
from worker.runner.model_runner import ModelRunner

# Blocks of 128, 64 and 32 channels that are full, that are cut, and several of each.
CONFIG = replace(
    SMALL,
    hidden_size=256,
    head_dim=96,
    qk_rope_head_dim=32,
    q_lora_rank=160,
    index_head_dim=64,
    moe_intermediate_size=160,
)
TEXT = tokens(340, CONFIG.vocab_size, seed=1)
FLIPPED_ROW = 2 * 2**-3 / math.sqrt(96)  # four flips in one row
LAYERS = range(CONFIG.num_hidden_layers)
CSA_LAYERS = [i for i in LAYERS if CONFIG.compress_ratios[i] == 4]


class Recorded:
    """A sublayer that remembers what went in and came out."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        given = x.clone()
        y: torch.Tensor = self.inner(x, *rest)
        self.calls.append((given, y.clone()))
        return y

    def both(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and outputs [T, ...] of the whole sequence, exact in float64."""
        given, made = (torch.cat(parts).double() for parts in zip(*self.calls, strict=True))
        return given, made


class RecordedLayer(Recorded):
    """A layer that remembers the streams before and after it."""

    def __call__(self, residual: Residual, *rest: Any) -> Residual:  # type: ignore[override]
        after: Residual = self.inner(residual, *rest)
        kernels = self.inner.kernels
        self.calls.append((residual.settled(kernels), after.settled(kernels)))
        return after


class Run:
    """One sequence through the worker's model, everything recorded."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        model = (runner := ModelRunner(directory, replace(ENGINE, dtype="official"))).model
        self.attention, self.experts, self.layers = [], [], []
        for i, layer in enumerate(model.layers):
            layer.attention = attention = Recorded(layer.attention)  # type: ignore[assignment]
            layer.experts = experts = Recorded(layer.experts)  # type: ignore[assignment]
            model.layers[i] = whole = RecordedLayer(layer)  # type: ignore[call-overload]
            self.attention.append(attention)
            self.experts.append(experts)
            self.layers.append(whole)
        sequences = Sequences(runner)
        for chunk in (TEXT[:201], TEXT[201:300], *([token] for token in TEXT[300:])):
            sequences.logits({0: chunk})


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with model_on_disk(CONFIG, seed=3) as directory:
        yield Run(directory)


@pytest.fixture(scope="module")
def reference(run: Run) -> OfficialReference:
    return OfficialReference(run.directory)


def row_errors(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[T] length of each row's error over the row's length."""
    return (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)


def share_equal(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours == theirs).double().mean())


@pytest.mark.parametrize("layer", LAYERS)
def test_attention(run: Run, reference: OfficialReference, layer: int) -> None:
    x, ours = run.attention[layer].both()
    theirs = reference.attention(layer, x)
    assert share_equal(ours, theirs) > 0.9
    assert row_errors(ours, theirs).max() < FLIPPED_ROW


@pytest.mark.parametrize("layer", LAYERS)
def test_experts(run: Run, reference: OfficialReference, layer: int) -> None:
    x, ours = run.experts[layer].both()
    theirs = reference.experts(layer, x, TEXT)
    assert share_equal(ours, theirs) > 0.99
    assert row_errors(ours, theirs).max() < FLIPPED_ROW


@pytest.mark.parametrize("layer", LAYERS)
def test_whole_layer(run: Run, reference: OfficialReference, layer: int) -> None:
    """With hyper-connections; flips of attention go on into the experts. A token that these send
    to other experts is no error, but has to be rare."""
    streams, ours = run.layers[layer].both()
    theirs = reference.layer(layer, streams, TEXT)
    theirs_chosen = reference.chosen[layer]
    reference.experts(layer, run.experts[layer].both()[0], TEXT)
    alike = (theirs_chosen.sort().values == reference.chosen[layer].sort().values).all(1)
    assert alike.double().mean() > 0.97
    assert share_equal(ours, theirs) > 0.75
    assert row_errors(ours, theirs)[alike].max() < 4 * FLIPPED_ROW


@pytest.mark.parametrize(
    ("rounding", "layers"),
    [
        ("activations", LAYERS),
        ("entries", LAYERS),
        ("index", CSA_LAYERS),
        ("hadamard", CSA_LAYERS),
    ],
)
def test_every_rounding_shows(run: Run, rounding: str, layers: list[int]) -> None:
    """The bounds above are tight enough to miss any one of them."""
    reference = OfficialReference(run.directory, without=rounding)
    for layer in layers:
        x, ours = run.attention[layer].both()
        theirs = reference.attention(layer, x)
        assert share_equal(ours, theirs) < 0.5
        assert row_errors(ours, theirs).median() > FLIPPED_ROW
