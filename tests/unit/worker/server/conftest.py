"""One worker server on the tiny model for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from support.polling import until
from support.worker_server import served

from worker.config import EngineConfig
from worker.server.launch import ServeConfig, build_serving

MODEL = "deepseek-v4-flash"
MAX_MODEL_LEN = 8192


@pytest.fixture(scope="session")
def base_url(tiny_directory: Path) -> Iterator[str]:
    config = ServeConfig(
        directory=tiny_directory,
        host="127.0.0.1",
        port=0,
        model_name=MODEL,
        effort_profile="preview",
        max_waiting=16,
        drain_seconds=5,
    )
    engine = EngineConfig(
        max_model_len=MAX_MODEL_LEN,
        max_sequences=8,
        max_batch_tokens=512,
        pages=64,
    )
    # Keep-alives many times a second: no client may ever mind one.
    with served(replace(build_serving(config, engine), keep_alive_seconds=0.05)) as url:
        yield url


@pytest.fixture
def http(base_url: str) -> Iterator[httpx.Client]:
    """A client; after the test the engine must be idle again."""
    with httpx.Client(base_url=base_url, timeout=60) as client:
        yield client
        until(
            lambda: {"running": 0, "waiting": 0}.items() <= client.get("/health").json().items(),
            seconds=10,
            what="the engine is idle",
        )
