"""One dialogue to learn from. Every task of this package makes these; `encode` turns them into
token ids."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation whose last message is the answer to learn, in OpenAI's shape (`content`,
    `reasoning_content`, `tool_calls`). With `fim` (prefix, suffix, middle) there are no messages:
    the middle is the answer."""

    task: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    thinking: bool = False
    response_format: dict[str, Any] | None = None
    fim: tuple[str, str, str] | None = None
    tool_choice: str | dict[str, Any] | None = None
    facts: tuple[str, ...] = ()  # what a right answer contains, where it may be worded freely
