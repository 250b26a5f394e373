"""A worker server whose model says what a test tells it to."""

import threading
from dataclasses import dataclass, field

from support.structured import token_ids

from worker.batch import Batch, ScheduledSequence, SequenceOutput, TokenLogprob
from worker.cache.manager import CacheManager
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.engine.client import EngineClient
from worker.engine.core import EngineCore
from worker.metrics import EngineMetrics
from worker.scheduler import Scheduler
from worker.server.generation import Serving
from worker.server.openai import Limits

EOS = 1
MODEL = "deepseek-v4-flash"
MAX_MODEL_LEN = 4096


@dataclass
class Script:
    """A runner that answers every prompt, all of `prompt_tokens` tokens, with `token_ids`, as far
    as a grammar lets it. The log-probability of an output token tells its number. Before token
    `pause_at` it waits until `going_on`."""

    prompt_tokens: int = 1
    token_ids: list[int] = field(default_factory=list)
    pause_at: int | None = None
    going_on: threading.Event = field(default_factory=threading.Event)

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        return [self._output(s) for s in batch.sequences]

    def _output(self, s: ScheduledSequence) -> SequenceOutput:
        if s.sample_position is None:
            return SequenceOutput(s.request_id)
        number = s.sample_position - self.prompt_tokens
        if number == self.pause_at:
            self.going_on.wait()
        said = self.token_ids[number] if 0 <= number < len(self.token_ids) else EOS
        if s.allowed_tokens is not None:
            (mask,) = s.allowed_tokens
            at, bit = divmod(said, 8)
            if at >= len(mask) or not mask[at] & 1 << bit:
                said = token_ids(mask)[0]
        top = [(said, -1.0 - number)] * (s.sampling.logprobs or 0)
        return SequenceOutput(s.request_id, [TokenLogprob(said, -1.0 - number, top)])


def make_scheduler() -> Scheduler:
    """A scheduler with room for sixteen."""
    cache = CacheManager(pages=64, state_slots=16, snapshots=16, page_tokens=256)
    return Scheduler(cache, max_sequences=16, max_batch_tokens=512, max_model_len=MAX_MODEL_LEN)


def scripted(
    script: Script, tokenizer: Tokenizer, chat: ChatEncoding, scheduler: Scheduler | None = None
) -> Serving:
    """A serving whose model is `script`."""
    metrics = EngineMetrics(MODEL)
    scheduler = scheduler or make_scheduler()
    return Serving(
        EngineClient(EngineCore(scheduler, script, metrics), max_requests=32),
        tokenizer,
        chat,
        Limits(MODEL, MAX_MODEL_LEN, tokenizer.vocab_size, EOS),
        metrics,
    )
