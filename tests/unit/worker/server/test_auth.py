"""Who may ask a worker that has a key."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.scripted_engine import MODEL, Script, scripted
from support.worker_server import served

from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.errors import ConfigError
from worker.server.auth import read_key

KEY = "the-engines-key"
BODY = {"model": MODEL, "prompt": "Hi", "max_tokens": 1}


@pytest.fixture(scope="module")
def keyed_url(tiny_directory: Path) -> Iterator[str]:
    tokenizer = Tokenizer(tiny_directory / "tokenizer.json")
    chat = ChatEncoding(tokenizer, effort_profile="preview")
    with served(replace(scripted(Script(), tokenizer, chat), api_key=KEY)) as url:
        yield url


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_who_shows_the_key_is_answered(keyed_url: str, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {KEY}"}
    assert httpx.get(f"{keyed_url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer wrong")],
        [("authorization", f"Bearer {KEY}x")],
        [("authorization", KEY)],
        [("authorization", f"Basic {KEY}")],
        [("authorization", "Bearer wrong"), ("authorization", f"Bearer {KEY}")],
    ],
    ids=["none", "another", "longer", "no scheme", "another scheme", "two"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/usage", "/nowhere"])
def test_nobody_else_is(keyed_url: str, path: str, headers: list[tuple[str, str]]) -> None:
    response = httpx.post(f"{keyed_url}{path}", json=BODY, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_probes_and_scrapers_need_no_key(keyed_url: str, path: str) -> None:
    assert httpx.get(f"{keyed_url}{path}").status_code == 200


def test_the_key_is_a_files_first_line(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\nanything\n")
    assert read_key("", file) == KEY
    assert read_key(KEY, None) == KEY
    assert read_key("", None) == ""


@pytest.mark.parametrize("content", ["", "\n", "two words", "ü"])
def test_a_file_without_a_key_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(ConfigError):
        read_key("", file)


def test_a_key_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not both"):
        read_key(KEY, tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot read"):
        read_key("", tmp_path / "nowhere")
