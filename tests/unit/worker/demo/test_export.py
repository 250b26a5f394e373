"""What is stored is what was trained, and what is installed is an official checkpoint."""

from pathlib import Path

import pytest
import torch
from support.demo_toys import TOY_MODEL, fresh
from support.v4 import ENGINE, Sequences
from typer.testing import CliRunner

from worker.cli import app
from worker.config import ModelConfig
from worker.demo.export import install, stored
from worker.demo.forward import hidden, run
from worker.demo.layout import lay_out
from worker.demo.parameters import prepared
from worker.demo.state import TrainingState
from worker.demo.vocabulary import frozen_rows, hash_table
from worker.errors import ConfigError
from worker.runner.model_runner import ModelRunner

DOCUMENT = [0, *range(40, 140), 3, *range(900, 955)]


@pytest.fixture(scope="module")
def state() -> TrainingState:
    state = fresh(seed=4)
    draw = torch.Generator().manual_seed(2)
    for tensor in state.tensors.values():  # nothing at zero, nothing round
        tensor += 0.05 * torch.randn(tensor.shape, generator=draw)
    return state


@pytest.fixture(scope="module")
def directory(state: TrainingState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "model"
    install(stored(state, TOY_MODEL), directory)
    return directory


@torch.no_grad()
def test_the_engine_computes_what_quantised_training_saw(
    state: TrainingState, directory: Path
) -> None:
    rest = frozen_rows(TOY_MODEL)[len(state.known) :]
    weights = prepared(state.tensors, TOY_MODEL, rest, compute=torch.float32, quantised=True)
    ids = torch.tensor([DOCUMENT + [0] * (-len(DOCUMENT) % 4)])
    hashed = hash_table(TOY_MODEL)[:, ids.flatten()]
    layout = lay_out(TOY_MODEL, ids, torch.zeros_like(ids), hashed)
    streams = run(weights, TOY_MODEL, layout)[: len(DOCUMENT)]
    ours = hidden(weights, TOY_MODEL, streams) @ weights["embed"].T
    theirs = Sequences(ModelRunner(directory, ENGINE)).logits({0: DOCUMENT})[0]
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-5


def test_an_installed_model_has_its_tokenizer_and_geometry(directory: Path) -> None:
    assert ModelConfig.from_dir(directory) == TOY_MODEL
    assert (directory / "tokenizer.json").exists()


def test_what_exists_is_not_overwritten(state: TrainingState, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        install(stored(state, TOY_MODEL), tmp_path)


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a stored demo model"):
        install(content, tmp_path / "model")


def test_the_command_installs_what_it_is_given(state: TrainingState, tmp_path: Path) -> None:
    (tmp_path / "toy.model").write_bytes(stored(state, TOY_MODEL))
    command = ["model", "demo", str(tmp_path / "model"), "--stored", str(tmp_path / "toy.model")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert ModelConfig.from_dir(tmp_path / "model") == TOY_MODEL
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "already exists" in again.stderr
