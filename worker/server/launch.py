"""Runs one worker process: bind, load, serve, drain. `worker.cli` calls it."""

import asyncio
import gc
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import uvicorn

from worker.config import EngineConfig, ModelConfig
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.build import build_engine
from worker.engine.client import SHUTTING_DOWN, EngineClient
from worker.errors import ConfigError, Unavailable
from worker.metrics import EngineMetrics
from worker.server.app import create_app
from worker.server.generation import Serving
from worker.server.journal import Journal
from worker.server.journal_store import JournalStore
from worker.server.openai import Limits

LAST_WORDS_SECONDS = 2  # between the deadline's errors and cutting connections


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """How to serve a model directory. `max_waiting`: requests beyond the batch before 503.
    `journal`: where to record usage, kept for `journal_hours`. `api_key`: what requests show."""

    directory: Path
    host: str
    port: int
    model_name: str
    effort_profile: str
    max_waiting: int
    drain_seconds: int
    journal: Path | None = None
    journal_hours: float = 72.0
    api_key: str = ""


def serve(config: ServeConfig, engine: EngineConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, CheckpointError; EngineCrashed when the
    step loop has died."""
    with bind(config.host, config.port) as listener:
        serving = build_serving(config, engine)
        gc.freeze()  # what is loaded stays: no step has to wait until all of it is looked through
        # uvicorn raises a signal again when it is done; a drained worker has ended as it should.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ignore)
        run(serving, listener, drain_seconds=config.drain_seconds)


def run(serving: Serving, listener: socket.socket, *, drain_seconds: int) -> None:
    """Serve on a bound socket until told to stop. Raises EngineCrashed."""
    config = uvicorn.Config(
        create_app(serving),
        http="httptools",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=drain_seconds + LAST_WORDS_SECONDS,
    )
    _Server(config, serving.client, drain_seconds).run(sockets=[listener])
    if serving.client.crashed.is_set():
        raise serving.client.crash


def build_serving(config: ServeConfig, engine: EngineConfig) -> Serving:
    """Load the model and everything around it. Raises ConfigError, CheckpointError."""
    journal = None
    if config.journal is not None:  # first: a journal that is in use is told before the load
        journal = Journal(JournalStore(config.journal), keep_hours=config.journal_hours)
    model = ModelConfig.from_dir(config.directory)
    tokenizer = Tokenizer(config.directory / "tokenizer.json")
    if tokenizer.vocab_size > model.vocab_size:
        raise ConfigError(
            f"tokenizer.json has {tokenizer.vocab_size} ids, the model's vocabulary "
            f"{model.vocab_size}; they do not belong together"
        )
    chat = ChatEncoding(tokenizer, effort_profile=config.effort_profile)
    metrics = EngineMetrics(config.model_name)
    core = build_engine(config.directory, engine, metrics)
    return Serving(
        client=EngineClient(
            core, max_requests=engine.ep_size * engine.max_sequences + config.max_waiting
        ),
        tokenizer=tokenizer,
        chat=chat,
        limits=Limits(
            model=config.model_name,
            max_model_len=engine.max_model_len,
            vocab_size=model.vocab_size,
            eos_token_id=model.eos_token_id,
        ),
        metrics=metrics,
        journal=journal,
        api_key=config.api_key,
    )


class _Server(uvicorn.Server):
    """Stops by itself when the engine crashes; on a signal lets requests finish up to a deadline,
    then tells the rest that they are over."""

    def __init__(self, config: uvicorn.Config, client: EngineClient, drain_seconds: int) -> None:
        super().__init__(config)
        self._client = client
        self._drain_seconds = drain_seconds

    async def main_loop(self) -> None:
        crashed = asyncio.create_task(self._client.crashed.wait())
        crashed.add_done_callback(lambda _: setattr(self, "should_exit", True))
        try:
            await super().main_loop()
        finally:
            crashed.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._client.crashed.is_set():  # nothing is left to drain: a slow client is no reason
            self.config.timeout_graceful_shutdown = LAST_WORDS_SECONDS
        reason = Unavailable("shutting_down", SHUTTING_DOWN)
        deadline = asyncio.get_running_loop().call_later(
            self._drain_seconds, self._client.fail_all, reason
        )
        try:
            await super().shutdown(sockets)
        finally:
            deadline.cancel()


def set_threads(count: int, ep_size: int = 1) -> None:
    """Let torch use `count` CPU threads on each rank; 0: half the cores together, the rest is for
    the event loop."""
    torch.set_num_threads(count or max(1, (os.cpu_count() or 2) // 2 // ep_size))


def bind(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, so that a taken one is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from None
    return listener


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
