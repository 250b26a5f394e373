"""The streams' mixes: compiled they are what they are as they stand."""

import shutil
from collections.abc import Iterator

import pytest
import torch

from worker.config import ModelConfig
from worker.demo.presets import REDUCED_MODEL
from worker.demo.streams import compile_mixes, mix_in, mix_out


@pytest.fixture
def compiled() -> Iterator[None]:
    if shutil.which("g++") is None:
        pytest.skip("needs a compiler: apt-get install g++")
    compile_mixes(on=True)
    yield
    compile_mixes(on=False)


def mixed(config: ModelConfig, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The next streams, and the gradients of all that they are made from."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    x, post, comb = mix_in(leaves, "", config, leaves["streams"])
    out = mix_out(leaves["streams"], torch.tanh(x), post, comb)
    out.square().mean().backward()  # type: ignore[no-untyped-call]
    grads = [leaf.grad for leaf in leaves.values()]
    return [out.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.storm  # compiling takes half a minute
@pytest.mark.filterwarnings("default")  # the compiler has some of its own
def test_compiled_mixes_and_their_gradients_are_those_of_plain_ones(compiled: None) -> None:
    torch.manual_seed(20)
    config, n = REDUCED_MODEL, REDUCED_MODEL.hc_mult
    rows = 2 * n + n * n
    inputs = {
        "streams": torch.randn(2, 96, n, config.hidden_size),
        "fn": torch.randn(rows, n * config.hidden_size) / 32,
        "base": torch.randn(rows),
        "scale": torch.rand(3) + 0.5,
    }
    quick = mixed(config, inputs)
    compile_mixes(on=False)
    plain = mixed(config, inputs)
    assert len(plain) == 1 + len(inputs)
    for ours, expected in zip(quick, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
