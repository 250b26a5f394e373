from typing import Any

import pytest
from support.structured import ASK, json_schema

from worker.encoding.chat import ChatEncoding
from worker.encoding.schemas import MAX_DEPTH, MAX_PATH, check_schema
from worker.errors import InvalidRequest


def chain(length: int) -> dict[str, Any]:
    """An array of an array ... of null, one reference each."""
    definitions: dict[str, Any] = {
        f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(length)
    }
    return {"$ref": "#/$defs/a0", "$defs": definitions | {f"a{length}": {"type": "null"}}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_chain_that_would_overflow_the_stack_is_refused(chat_encoding: ChatEncoding) -> None:
    with pytest.raises(InvalidRequest, match="too many references"):
        chat_encoding.encode({"messages": ASK, "response_format": json_schema(chain(5000))})


def test_longest_allowed_chain_compiles(chat_encoding: ChatEncoding) -> None:
    longest = chain(MAX_PATH // 6 - 2)  # six levels, with `response_format`'s own two
    prompt = chat_encoding.encode({"messages": ASK, "response_format": json_schema(longest)})
    assert prompt.grammar is not None


def test_depth_is_bounded() -> None:
    check_schema(nested(MAX_DEPTH), param="p")
    with pytest.raises(InvalidRequest, match="deeper"):
        check_schema(nested(MAX_DEPTH + 1), param="p")
    with pytest.raises(InvalidRequest, match="deeper"):
        check_schema(nested(100_000), param="p")


def test_cycles_are_no_depth() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    check_schema(node, param="p")
