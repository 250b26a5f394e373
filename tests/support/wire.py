"""Streams of the worker's wire as tests read them."""

from typing import Any

import httpx
import msgspec


def chunks(http: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, which must come to its end."""
    response = http.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]", response.text
    return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines]


def only(chunk: dict[str, Any]) -> dict[str, Any]:
    """The one choice of a chunk."""
    (choice,) = chunk["choices"]
    assert isinstance(choice, dict)
    return choice


def token_ids(told: list[dict[str, Any]]) -> list[int]:
    """All output tokens that chunks with `return_token_ids` tell."""
    return [token_id for chunk in told for token_id in only(chunk)["token_ids"]]
