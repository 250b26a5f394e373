"""What the process that serves and its ranks tell each other, over one socket pair per rank.

Pickled: both ends are this package, and the sockets have no name that anyone else could open. Of a
grammar, which lives outside of Python, only its form travels, and is built anew.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.batch import TokenLogprob
from worker.config import EngineConfig
from worker.encoding.grammar import AnswerForm, AnswerGrammar
from worker.errors import WorkerError
from worker.metrics import Key
from worker.parallel.groups import Seat
from worker.request import FinishReason, Request
from worker.scheduler import Progress

# What the scheduler writes into a request that its server reads: copied with every token.
REPORTED_FIELDS = ("cache_hit_tokens", "computed_tokens")


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a rank: load and take a seat."""

    engine: EngineConfig
    seat: Seat
    threads: int
    log_level: int


@dataclass(frozen=True, slots=True)
class Begin:
    """All ranks have loaded: run the step loop."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A request that no engine has seen."""

    request: Request


@dataclass(frozen=True, slots=True)
class Wake:
    """Another rank has been sent a `Submit`."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget a request, finished or not."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End after the step in flight."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The rank has loaded."""


@dataclass(frozen=True, slots=True)
class Step:
    """One `Progress` without its request. `fields`: the values of REPORTED_FIELDS."""

    request_id: str
    token: TokenLogprob | None
    prompt_logprobs: list[TokenLogprob]
    finish_reason: FinishReason | None
    error: str | None
    fields: tuple[Any, ...]

    @classmethod
    def of(cls, progress: Progress) -> "Step":
        """As the rank sends it."""
        request = progress.request
        return cls(
            request.request_id,
            progress.token,
            progress.prompt_logprobs,
            progress.finish_reason,
            progress.error,
            tuple(getattr(request, name) for name in REPORTED_FIELDS),
        )

    def onto(self, request: Request) -> Progress:
        """The same of the server's own `request`, which is brought up to date."""
        for name, value in zip(REPORTED_FIELDS, self.fields, strict=True):
            setattr(request, name, value)
        if self.token is not None:
            request.output_token_ids.append(self.token.token_id)
        request.finish_reason = self.finish_reason
        return Progress(request, self.token, self.prompt_logprobs, self.finish_reason, self.error)


@dataclass(frozen=True, slots=True)
class Report:
    """A step's results and the rank's load. `samples` of its metrics come now and then."""

    steps: list[Step]
    running: int
    waiting: int
    samples: dict[Key, float] | None


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record's attributes; whoever serves writes them."""

    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The rank's last message."""

    error: WorkerError


Downward = Begin | Submit | Wake | Abort | Stop
Upward = Ready | Report | LogLine | Failed


def dump(message: Setup | Downward) -> bytes:
    """A message as a rank reads it with `load`."""
    written = io.BytesIO()
    _Pickler(written).dump(message)
    return written.getvalue()


def load(written: bytes, build: Callable[[AnswerForm], AnswerGrammar]) -> Any:
    """The message, its grammars made by `build`."""
    unpickler = _Unpickler(io.BytesIO(written))
    unpickler.build = build
    return unpickler.load()


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> AnswerForm | None:
        return obj.form if isinstance(obj, AnswerGrammar) else None


class _Unpickler(pickle.Unpickler):
    build: Callable[[AnswerForm], AnswerGrammar]

    def persistent_load(self, pid: AnswerForm) -> AnswerGrammar:
        return self.build(pid)
