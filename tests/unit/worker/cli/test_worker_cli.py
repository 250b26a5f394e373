import importlib.metadata
import json
import logging
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoints import rewrite, without_mtp
from typer.testing import CliRunner

from worker.cli import app

cli = CliRunner()


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """The command sends logs to its own stderr, which is gone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_version() -> None:
    result = cli.invoke(app, ["--version"])
    assert result.stdout.split() == ["flashplane-worker", importlib.metadata.version("flashplane")]


@pytest.mark.parametrize(
    "command",
    [
        *([], ["serve"], ["model"]),
        *(["model", name] for name in ("tiny", "demo", "stored", "inspect")),
    ],
)
def test_help_teaches(command: list[str]) -> None:
    result = cli.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_not_a_model_directory_is_one_sentence(tmp_path: Path) -> None:
    result = cli.invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 1
    assert "config.json does not exist" in result.stderr
    assert "Traceback" not in result.output


def test_taken_port_names_the_flag(tiny_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = cli.invoke(app, ["serve", str(tiny_directory), "--port", port])
    assert result.exit_code == 1
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--effort-profile", "0801"], "preview, 0731"),
        (["--snapshots", "every:0"], "full, every:P"),
        (["--max-model-len", "4096", "--pages", "2"], "--pages"),
    ],
)
def test_bad_settings_name_the_fix(tiny_directory: Path, options: list[str], word: str) -> None:
    result = cli.invoke(app, ["serve", str(tiny_directory), "--port", "65000", *options])
    assert result.exit_code == 1
    assert word in result.stderr


def test_tiny_writes_a_model(tmp_path: Path) -> None:
    result = cli.invoke(app, ["model", "tiny", str(tmp_path / "m"), "--seed", "3"])
    assert result.exit_code == 0
    assert (tmp_path / "m" / "config.json").exists()
    assert (tmp_path / "m" / "tokenizer.json").exists()


def test_inspect_prints_a_report(tiny_directory: Path) -> None:
    result = cli.invoke(app, ["model", "inspect", str(tiny_directory), "--ep-size", "2"])
    assert result.exit_code == 0
    assert "official names" in result.stdout
    assert "on each of 2 ranks" in result.stdout


def test_inspect_prints_one_json_object(tiny_directory: Path) -> None:
    command = ["model", "inspect", str(tiny_directory), "--json", "--dtype", "float32"]
    report = json.loads(cli.invoke(app, command).stdout)
    assert report["dtype"] == "float32"
    assert report["geometry"]["compress_ratios"] == [0, 0, 4, 128, 4, 128, 0]


def test_inspect_tells_what_drafting_takes(tiny_directory: Path) -> None:
    command = ["model", "inspect", str(tiny_directory), "--json"]
    plain = json.loads(cli.invoke(app, command).stdout)
    drafting = json.loads(cli.invoke(app, [*command, "--draft-tokens", "2"]).stdout)
    assert (plain["draft_tokens"], drafting["draft_tokens"]) == (0, 2)
    assert drafting["loaded"]["per_rank_bytes"] > plain["loaded"]["per_rank_bytes"]
    assert drafting["kv_bytes_per_sequence"] > plain["kv_bytes_per_sequence"]


def test_drafting_without_a_block_for_it_names_the_fix(
    tiny_directory: Path, tmp_path: Path
) -> None:
    bare = rewrite(tiny_directory, tmp_path / "bare", without_mtp)
    shutil.copyfile(tiny_directory / "tokenizer.json", bare / "tokenizer.json")
    command = ["serve", str(bare), "--port", "65000", "--draft-tokens", "1"]
    result = cli.invoke(app, command)
    assert result.exit_code == 1
    assert "--draft-tokens 0" in result.stderr


def test_inspect_names_a_model_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v41"}')
    result = cli.invoke(app, ["model", "inspect", str(tmp_path)])
    assert result.exit_code == 1
    assert "'deepseek_v41' is not supported" in result.stderr
