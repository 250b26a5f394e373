"""The tiny model on disk, once per run."""

from pathlib import Path

import pytest

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.model.tiny import write_tiny


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
