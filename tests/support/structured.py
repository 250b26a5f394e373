"""Schemas and tools for tests of structured output, a sampler without a model, and the witness."""

import random
from typing import Any

import jsonschema_rs
import numpy as np

from worker.batch import TokenLogprob
from worker.encoding.chat import ChatEncoding, ChatPrompt
from worker.request import FinishReason

EOS = 1
NO_THINKING = {"thinking": {"type": "disabled"}}
ASK = [{"role": "user", "content": "Some json, please"}]


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object schema in which every property is required and no other allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


# All bounded: whatever is sampled ends within a hundred tokens or so.
SCHEMAS: dict[str, dict[str, Any]] = {
    "object": closed(
        {
            "town": {"type": "string", "maxLength": 8},
            "degrees": {"type": "integer", "minimum": -40, "maximum": 50},
        }
    ),
    "array": {
        "type": "array",
        "items": {"enum": ["x", "y", None, 1.5]},
        "minItems": 1,
        "maxItems": 4,
    },
    "pattern": {"type": "string", "pattern": "^[a-c]{2,5}$"},
    "choice": {"anyOf": [{"type": "boolean"}, {"type": "string", "format": "date"}]},
    "optional": {
        "type": "object",
        "properties": {"u": {"type": "string", "maxLength": 5}, "v": {"$ref": "#/$defs/v"}},
        "required": ["v"],
        "additionalProperties": False,
        "$defs": {"v": {"type": "array", "maxItems": 3, "items": {"const": "k"}}},
    },
}
ARGUMENTS = closed(
    {
        "town": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 5},
        "unit": {"type": "string", "enum": ["a\nb", "ab", "</", "<｜"]},  # noqa: RUF001
        "code": {"type": "string", "pattern": "^a+b{2}$", "maxLength": 9},
        "note": {"type": ["string", "null"], "maxLength": 4},
        "größe_€/~": {"$ref": "#/$defs/size"},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    **{"$defs": {"size": closed({"z": {"type": "string", "minLength": 1, "maxLength": 3}})}},
)


def tool(name: str, parameters: dict[str, Any], *, strict: bool = True) -> dict[str, Any]:
    function = {"name": name, "strict": strict, "parameters": parameters}
    return {"type": "function", "function": function}


def json_schema(schema: Any) -> dict[str, Any]:
    """`response_format` for a schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def assert_valid(value: Any, schema: dict[str, Any]) -> None:
    """By an implementation of JSON Schema that the worker does not use."""
    jsonschema_rs.validator_for(schema).validate(value)


def token_ids(mask: bytes) -> list[int]:
    """The ids that a mask allows."""
    ids: list[int] = np.flatnonzero(
        np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    ).tolist()
    return ids


def draw(prompt: ChatPrompt, rng: random.Random, *, limit: int = 2000) -> list[int]:
    """An answer of uniformly drawn allowed tokens, up to and with the end token."""
    assert prompt.grammar is not None
    output: list[int] = []
    while len(output) < limit and output[-1:] != [EOS]:
        output.append(rng.choice(token_ids(prompt.grammar.allowed(output))))
    return output


def read(chat: ChatEncoding, prompt: ChatPrompt, output: list[int]) -> dict[str, Any]:
    """The choice that the chat parser makes of `output`."""
    stream = chat.stream(prompt, response_id="id", model="m")
    stream.start()
    for token_id in output:
        if token_id != EOS:
            stream.push(TokenLogprob(token_id, -1.0))
    stream.finish(FinishReason.STOP if output[-1] == EOS else FinishReason.LENGTH)
    choice: dict[str, Any] = stream.response()["choices"][0]
    return choice
