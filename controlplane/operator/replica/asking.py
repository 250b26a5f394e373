"""One engine, asked: its health, its load, and the one generation that proves it servable.

Run by `monitor`, on its event loop. Silence is no answer: an engine that is busy with a long prompt
may be late, so a timeout changes nothing and what was told before grows old. Whether such an engine
is alive is the kubelet's judgement.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import NamedTuple

import aiohttp

from controlplane.operator.engines.openai import MODELS_PATH, parse_models
from controlplane.operator.engines.profile import EngineProfile
from controlplane.operator.signals import EngineState

ANSWER_SECONDS = 2.0
GENERATION_SECONDS = 60.0
# Answers in a row that say unwell until it counts: one may be a hiccup.
UNWELL_ANSWERS = 3


@dataclass(frozen=True)
class Target:
    """An engine to ask: one process of one replica.

    Attributes:
        started_at: start of the process, by its node's clock; another start is another process.
        every_seconds: how often it is asked.
    """

    uid: str
    key: tuple[str, str]
    url: str
    model: str
    profile: EngineProfile
    started_at: float
    every_seconds: float


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str


class Asking:
    """What one process has told so far."""

    def __init__(self, client: aiohttp.ClientSession, target: Target) -> None:
        self._client = client
        self.target = target
        self.state: EngineState | None = None
        self._unwell = 0

    async def ask(self) -> EngineState | None:
        """Ask once and return what is known now; None: nothing yet."""
        try:
            answer = await self._get(self.target.profile.health_path)
        except TimeoutError:
            return self.state
        except aiohttp.ClientError as error:
            return self._said_unwell(type(error).__name__)
        if answer.status != HTTPStatus.OK:
            return self._said_unwell(f"{self.target.profile.health_path}: {answer.status}")
        self._unwell = 0
        before = self.state
        healthy = EngineState(
            at=time.time(), healthy=True, started_at=self.target.started_at, error=""
        )
        if before is not None and before.proven:
            healthy = replace(healthy, proven=True, max_model_len=before.max_model_len)
        self.state = await self._with_load(healthy)
        if not self.state.proven:
            self.state = await self._prove(self.state)
        return self.state

    def _said_unwell(self, error: str) -> EngineState | None:
        self._unwell += 1
        if self._unwell < UNWELL_ANSWERS:
            return self.state
        before = self.state or EngineState(at=0.0, healthy=False)
        # What it had in flight may be lost, or not: nothing is known of it now.
        self.state = replace(
            before,
            at=time.time(),
            healthy=False,
            running=None,
            waiting=None,
            kv_usage=None,
            error=error,
            started_at=self.target.started_at,
        )
        return self.state

    async def _with_load(self, state: EngineState) -> EngineState:
        try:
            answer = await self._get(self.target.profile.metrics_path)
        except (aiohttp.ClientError, TimeoutError):
            return state
        if answer.status != HTTPStatus.OK:
            return state
        load = self.target.profile.parse_metrics(answer.text)
        return replace(state, running=load.running, waiting=load.waiting, kv_usage=load.kv_usage)

    async def _prove(self, state: EngineState) -> EngineState:
        path, body = self.target.profile.completion_request(self.target.model)
        try:
            answer = await self._send("POST", path, GENERATION_SECONDS, body)
            if answer.status != HTTPStatus.OK:
                return replace(state, error=f"{path}: {answer.status} {answer.text[:200]}")
            if not _generated(json.loads(answer.text)):
                return replace(state, error=f"{path}: an answer without a choice")
            context = await self._context()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return replace(state, error=f"{path}: {type(error).__name__}")
        return replace(state, at=time.time(), proven=True, max_model_len=context)

    async def _context(self) -> int | None:
        answer = await self._get(MODELS_PATH)
        served = parse_models(json.loads(answer.text)) if answer.status == HTTPStatus.OK else []
        lengths = {it.name: it.max_model_len for it in served}
        return lengths.get(self.target.model)

    async def _get(self, path: str) -> Answer:
        return await self._send("GET", path, ANSWER_SECONDS)

    async def _send(
        self, method: str, path: str, seconds: float, body: Mapping[str, object] | None = None
    ) -> Answer:
        async with self._client.request(
            method,
            self.target.url + path,
            json=body,
            timeout=aiohttp.ClientTimeout(total=seconds),
            allow_redirects=False,
        ) as answer:
            return Answer(answer.status, (await answer.read()).decode(errors="replace"))


def _generated(body: object) -> bool:
    return isinstance(body, Mapping) and bool(body.get("choices"))
