"""The tiny model on disk, once per run, and what is told of tests that need a GPU."""

from pathlib import Path

import pytest
import torch

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.model.tiny import write_tiny


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device; on a machine with a Hopper GPU run `make test-gpu`")


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with the real tokenizer and random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny(directory, seed=0)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tiny_directory: Path) -> Tokenizer:
    return Tokenizer(tiny_directory / "tokenizer.json")


@pytest.fixture(scope="session")
def chat_encoding(tokenizer: Tokenizer) -> ChatEncoding:
    return ChatEncoding(tokenizer, effort_profile="preview")
