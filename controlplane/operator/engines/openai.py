"""What all engines have from OpenAI's API: the request that proves one servable, and its models."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MODELS_PATH = "/v1/models"


class ServedModel(NamedTuple):
    """A model of a `GET /v1/models` answer, with its longest context in tokens."""

    name: str
    max_model_len: int | None


def completion_request(model: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of a POST that generates one token."""
    body = {"model": model, "prompt": "1, 2, 3,", "max_tokens": 1, "temperature": 0}
    return "/v1/completions", body


def parse_models(body: Mapping[str, Any]) -> list[ServedModel]:
    """Return the models of a `GET /v1/models` answer."""
    return [
        ServedModel(str(it.get("id", "")), it.get("max_model_len"))
        for it in body.get("data", ())
        if isinstance(it, Mapping)
    ]
