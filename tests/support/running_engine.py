"""A started engine with its parts in reach, for tests of the worker."""

from dataclasses import dataclass

from worker.config import EngineConfig
from worker.engine.client import EngineClient
from worker.request import Request, SamplingParams
from worker.runner.model_runner import ModelRunner
from worker.scheduler import Progress, Scheduler

ENGINE = EngineConfig(max_model_len=4096, max_sequences=8, max_batch_tokens=1024, pages=40)


@dataclass
class RunningEngine:
    """Look at `scheduler` only when nothing is running."""

    client: EngineClient
    scheduler: Scheduler
    runner: ModelRunner

    async def generate(
        self, name: str, prompt: list[int], sampling: SamplingParams, salt: bytes = b""
    ) -> Request:
        """Run a request to its end."""
        request = Request(name, list(prompt), sampling, cache_salt=salt)
        await self.progress(request)
        return request

    async def progress(self, request: Request) -> list[Progress]:
        """Run a request to its end; returns every step's result."""
        seen: list[Progress] = []
        with self.client.generate(request) as queue:
            while not seen or seen[-1].finish_reason is None:
                seen.append(await queue.get())
        return seen
