"""Two servers on one model that its draft head mostly foresees: only one of them drafts."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.predictable import write_predictable
from support.structured import ASK, NO_THINKING, SCHEMAS, json_schema
from support.worker_server import served

from worker.config import EngineConfig
from worker.server.launch import ServeConfig, build_serving

MODEL = "deepseek-v4-flash"
CHAT = {"model": MODEL, "messages": ASK, "max_tokens": 60}


@pytest.fixture(scope="module")
def clients(
    tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, httpx.Client]]:
    """By draft tokens."""
    directory = tmp_path_factory.mktemp("drafting") / "model"
    write_predictable(tiny_directory, directory, damping=8)
    with ExitStack() as stack:
        found: dict[int, httpx.Client] = {}
        for draft_tokens in (0, 3):
            config = ServeConfig(directory, "127.0.0.1", 0, MODEL, "preview", 16, 5)
            engine = EngineConfig(
                max_model_len=2048, max_sequences=4, pages=16, draft_tokens=draft_tokens
            )
            url = stack.enter_context(served(build_serving(config, engine)))
            client = httpx.Client(base_url=url, timeout=60)
            found[draft_tokens] = stack.enter_context(client)
        yield found


def chunks(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Every streamed chunk, without what names one request."""
    lines = client.post("/v1/chat/completions", json=body | {"stream": True}).text.split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    found = [json.loads(line) for line in data]
    return [{"choices": c["choices"], "usage": c["usage"]} for c in found]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"seed": 4, "top_p": 0.95},
        {"seed": 5, **NO_THINKING, "response_format": json_schema(SCHEMAS["object"])},
        {"seed": 6, "stop": ["e"]},
        {"temperature": 0, "max_tokens": 1},
    ],
    ids=["greedy", "seeded", "schema", "stop", "one"],
)
def test_every_chunk_is_the_same(clients: dict[int, httpx.Client], fields: dict[str, Any]) -> None:
    plain, drafting = (chunks(client, CHAT | fields) for client in clients.values())
    assert drafting == plain


def test_metrics_tell_what_drafts_were_worth(clients: dict[int, httpx.Client]) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 64, "temperature": 0}
    assert clients[3].post("/v1/completions", json=body).status_code == 200
    told = {
        line.rsplit(" ", 1)[0].split("{")[0]: float(line.rsplit(" ", 1)[1])
        for line in clients[3].get("/metrics").text.splitlines()
        if line.startswith("vllm:spec_decode")
    }
    tried = told["vllm:spec_decode_num_draft_tokens_total"]
    accepted = told["vllm:spec_decode_num_accepted_tokens_total"]
    assert 0.5 * tried < accepted <= tried
    assert told["vllm:spec_decode_num_drafts_total"] <= tried
