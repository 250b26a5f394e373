"""Generated tokens to message deltas: what a chat answer is on the wire. `chat` makes a stream per
answer; the server feeds it.
"""

from typing import Any

import deepseek_recipe as recipe
import msgspec

from worker.batch import TokenLogprob
from worker.request import FinishReason

MOST_UNLIKELY_LOGPROB = -9999.0  # JSON has no minus infinity
_FINISH = {
    FinishReason.STOP: recipe.InferenceFinishReason.Stop,
    FinishReason.LENGTH: recipe.InferenceFinishReason.Length,
}


class ChatStream:
    """Turns generated tokens into chat completion chunks (JSON objects; their `usage` is the
    server's to fill). Never raises on what a model emits: markup that does not parse stays text."""

    def __init__(
        self,
        processor: recipe.StreamProcessor,
        response: recipe.ChatCompletionResponse,
        *,
        thinking_end: int,
        reasoning: bool,
        logprobs: bool,
    ) -> None:
        self._processor = processor
        self._response = response
        self._thinking_end = thinking_end
        self._reasoning = reasoning
        self._logprobs = logprobs
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """A stop string has ended the answer; its last chunk has been returned."""
        return self._processor.finished

    def start(self) -> list[dict[str, Any]]:
        """The chunk that names the role."""
        return self._push(recipe.InferenceChunk.ready())

    def push(self, token: TokenLogprob) -> list[dict[str, Any]]:
        """The chunks that this token completes: often one, none while text is held back."""
        if token.token_id == self._thinking_end:
            self._reasoning = False
        self.reasoning_tokens += self._reasoning
        logprobs = [_logprob_pair(token)] if self._logprobs else None
        chunks = self._push(recipe.InferenceChunk.tokens([token.token_id], logprobs))
        # A tool call without </think> before it ends the reasoning as well.
        if any(_has_answer(chunk) for chunk in chunks):
            self._reasoning = False
        return chunks

    def finish(self, reason: FinishReason) -> list[dict[str, Any]]:
        """What was held back, and the chunk with the finish reason."""
        if self.stopped:
            return []
        return self._push(recipe.InferenceChunk.finish(_FINISH[reason]))

    def response(self) -> dict[str, Any]:
        """All chunks so far as one chat completion."""
        return _decode(self._response.to_json())

    def _push(self, chunk: recipe.InferenceChunk) -> list[dict[str, Any]]:
        produced = self._processor.push(chunk)
        documents = [_decode(c.to_json()) for c in produced]
        for c in produced:
            assert isinstance(c, recipe.ChatCompletionChunk)
            self._response.accumulate(c)
        return documents


def _has_answer(chunk: dict[str, Any]) -> bool:
    delta = chunk["choices"][0]["delta"]
    return bool(delta.get("content") or delta.get("tool_calls"))


def _decode(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])


def _logprob_pair(token: TokenLogprob) -> tuple[float, list[tuple[int, float]]]:
    assert token.logprob is not None
    top = [(token_id, max(logprob, MOST_UNLIKELY_LOGPROB)) for token_id, logprob in token.top]
    return max(token.logprob, MOST_UNLIKELY_LOGPROB), top
