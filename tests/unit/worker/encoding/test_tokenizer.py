# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from worker.encoding.tokenizer import IncrementalDecoder, Tokenizer
from worker.errors import ConfigError

VOCAB_SIZE = 129_280
CONTROL = ["<｜end▁of▁sentence｜>", "<｜User｜>", "</think>", "｜DSML｜", "<｜begin▁of▁sentence｜>"]
TOKEN_IDS = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=40)


@pytest.fixture(scope="module")
def reference(tiny_directory: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(tiny_directory / "tokenizer.json"))


def test_knows_the_whole_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == VOCAB_SIZE


@pytest.mark.parametrize("text", CONTROL)
def test_typed_control_tokens_stay_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(f"a {text} b")
    assert tokenizer.control_id(text) not in ids
    assert tokenizer.decode(ids) == f"a {text} b"


def test_control_segments_become_one_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_segments([("", False), ("<｜User｜>", True), ("hi", False)])
    assert ids == [128803, *tokenizer.encode("hi")]


@given(text=st.text(st.characters(codec="utf-8")))
def test_encoding_loses_nothing(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<>｜|")))
def test_encodes_as_the_reference_does(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, text: str
) -> None:
    assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids


@given(token_ids=TOKEN_IDS)
def test_decodes_any_tokens_as_the_reference_does(
    tokenizer: Tokenizer, reference: tokenizers.Tokenizer, token_ids: list[int]
) -> None:
    assert tokenizer.decode(token_ids) == reference.decode(token_ids, skip_special_tokens=False)


@given(token_ids=TOKEN_IDS)
def test_incremental_decoding_gives_the_same_text(
    tokenizer: Tokenizer, token_ids: list[int]
) -> None:
    decoder = IncrementalDecoder(tokenizer)
    pieces = [decoder.push(t) for t in token_ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(token_ids)


def test_no_half_characters(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🎉")
    assert len(ids) > 1
    decoder = IncrementalDecoder(tokenizer)
    assert [decoder.push(t) for t in ids] == [""] * (len(ids) - 1) + ["🎉"]


def test_part_of_a_character_is_listed_as_bytes(tokenizer: Tokenizer) -> None:
    first = tokenizer.encode("🎉")[0]
    assert tokenizer.text(first).startswith("\\xf0\\x9f")


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", ["", "{}", '{"added_tokens": [], "model": {"vocab": {}}}'])
def test_malformed_file_is_a_config_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="not a tokenizer"):
        Tokenizer(path)
