import json
from pathlib import Path

import pytest
import torch
from support.v4 import SMALL

from worker.config import ModelConfig
from worker.errors import ConfigError
from worker.model.loader import load_weights
from worker.model.tiny import TINY, write_checkpoint, write_tiny


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_checkpoint(tmp_path / name, SMALL, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert {name for name in a if a[name] != c[name]} == {n for n in a if n.endswith("safetensors")}


def test_the_tiny_model_comes_with_its_tokenizer(tmp_path: Path) -> None:
    write_tiny(tmp_path / "model")
    assert ModelConfig.from_dir(tmp_path / "model") == TINY
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text(encoding="utf-8"))
    highest = max(
        *tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])
    )
    assert highest == TINY.vocab_size - 1


def test_no_tensor_is_left_at_zero(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", SMALL)
    weights = load_weights(tmp_path / "model", SMALL, torch.float32)
    assert [name for name, tensor in weights.items() if not tensor.any()] == []


@pytest.mark.parametrize("occupied", ["file", "directory"])
def test_what_exists_is_never_overwritten(tmp_path: Path, occupied: str) -> None:
    target = tmp_path / "model"
    kept = target if occupied == "file" else target / "kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        write_checkpoint(target, SMALL)
    assert kept.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_checkpoint(tmp_path / "model", SMALL)
    assert ModelConfig.from_dir(tmp_path / "model") == SMALL
