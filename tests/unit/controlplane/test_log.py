"""Logs: JSON lines with allowed fields only, rotated."""

import ast
import json
import logging
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest

from controlplane import log

CANARY = "a very private prompt"
KEY = "dsf_0123456789abcdef_" + "s" * 43 + "_123456"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    log.configure("test", log_dir=tmp_path / "logs", level="info")
    yield tmp_path / "logs"
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test.log").read_text().splitlines()]


def test_a_line_is_json_with_its_fields(folder: Path) -> None:
    logging.getLogger("some.module").info("hold_placed", extra={"requests": 7})
    (line,) = lines(folder)
    assert line["event"] == "hold_placed"
    assert (line["requests"], line["process"], line["level"]) == (7, "test", "INFO")


def test_a_field_that_is_not_allowed_is_left_out(folder: Path) -> None:
    logging.getLogger().warning("x", extra={"prompt": CANARY, "messages": [CANARY]})
    assert CANARY not in (folder / "test.log").read_text()


def test_an_exception_is_told_without_its_text(folder: Path) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger().exception("broke")
    (line,) = lines(folder)
    assert line["exception"][0] == "builtins.ValueError"
    assert CANARY not in json.dumps(line)


def test_a_key_is_blacked_out_wherever_it_stands(folder: Path) -> None:
    logging.getLogger().info("called with %s", KEY, extra={"reason": f"key {KEY}"})
    (line,) = lines(folder)
    assert line["event"] == "called with dsf_***"
    assert "s" * 43 not in json.dumps(line)


def test_every_field_that_is_logged_is_allowed() -> None:
    package = Path(log.__file__).parent
    trees = [ast.parse(file.read_text()) for file in package.rglob("*.py")]
    given = {
        key.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and node.arg == "extra"
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    }
    assert given
    assert given <= log.FIELDS


def test_logs_rotate(folder: Path) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RotatingFileHandler):
            handler.maxBytes = 1_000
    for _ in range(100):
        logging.getLogger().info("x" * 100)
    assert len(list(folder.iterdir())) == 1 + log.ROTATED_FILES


def test_without_a_folder_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    try:
        log.configure("test", log_dir=None, level="INFO")
        root.info("hello")
    finally:
        root.handlers, root.level = handlers, level
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


@pytest.mark.parametrize("library", ["httpx", "asyncssh"])
def test_libraries_that_tell_what_customers_do_are_silent(folder: Path, library: str) -> None:
    logging.getLogger(library).info("Command: rm -r secrets")
    assert "secrets" not in "".join(it.read_text() for it in folder.iterdir())
