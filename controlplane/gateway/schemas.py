"""The fields of a request that the gateway itself understands. Called by `body`."""

from typing import Literal

import msgspec

from controlplane.errors import UnprocessableRequest

# What an engine may be asked. All else is dropped, as DeepSeek drops what it does not know: engines
# have fields of their own (priorities, cache transfer, prompts as token ids) no client may set.
_SAMPLING_FIELDS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "min_p",
        "model",
        "presence_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    }
)
CHAT_FIELDS = _SAMPLING_FIELDS | {
    "messages",
    "parallel_tool_calls",
    "reasoning_effort",
    "response_format",
    "tool_choice",
    "tools",
    "top_logprobs",
}
COMPLETION_FIELDS = _SAMPLING_FIELDS | {"echo", "prompt", "suffix"}
# Every accepted spelling of `reasoning_effort` and the effort it means.
EFFORTS = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "max",
    "ultra": "max",
}


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class Thinking(msgspec.Struct):
    """`thinking`: on unless the client turns it off."""

    type: Literal["enabled", "disabled"] = "enabled"


def effort_of(name: str | None) -> str | None:
    """Return the effort that `name` means, None for none given.

    Raises:
        UnprocessableRequest: not an effort.
    """
    if name is None:
        return None
    if name not in EFFORTS:
        known = ", ".join(EFFORTS)
        raise UnprocessableRequest(
            f"unknown reasoning_effort {name!r}; known are {known}", param="reasoning_effort"
        )
    return EFFORTS[name]
