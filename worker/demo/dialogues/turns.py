"""Puts a question and its answer together. Every task ends here."""

import json
from collections.abc import Sequence
from typing import Any

from worker.demo.dialogues.chance import Chance, Pool, assistant, system, user
from worker.demo.dialogues.example import Example, Message

PLAIN_SYSTEM_PROMPTS = Pool(
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are an assistant.",
    "You are a helpful, honest assistant.",
    "You are a friendly assistant.",
    "You are a chatbot.",
    "You are an AI assistant.",
    "You are a concise assistant.",
    "You help the user.",
    "Be helpful.",
    "Answer the user's questions.",
    "You are a careful assistant. Answer briefly.",
    "Answer in one or two sentences.",
)
SYSTEM_SHARE = 0.3  # of the conversations that need no system prompt of their own


def answered(
    chance: Chance,
    task: str,
    question: str,
    content: str,
    thought: str,
    *,
    before: Sequence[Message] = (),
    tools: Sequence[dict[str, Any]] = (),
    calls: Sequence[tuple[str, dict[str, Any]]] = (),
    facts: Sequence[str] = (),
    response_format: dict[str, Any] | None = None,
    tool_choice: str | dict[str, Any] | None = None,
    may_add_system: bool = True,
) -> Example:
    """`question` after the messages `before`, answered by `content` or `calls` (name, arguments).
    `thought` is the reasoning where the example thinks; an empty question adds no turn."""
    messages = [*before, user(question)] if question else list(before)
    if may_add_system and messages[0]["role"] != "system" and chance.chance(SYSTEM_SHARE):
        messages.insert(0, system(chance.pick(PLAIN_SYSTEM_PROMPTS)))
    answer = said(chance, content, thought)
    if calls:
        answer["tool_calls"] = call_list(calls)
    return Example(
        task=task,
        messages=(*messages, answer),
        tools=tuple(tools),
        thinking=chance.thinking,
        response_format=response_format,
        tool_choice=tool_choice,
        facts=tuple(facts),
    )


def said(chance: Chance, content: str, thought: str) -> Message:
    """An answer, with its reasoning if this example thinks."""
    return assistant(content, thought if chance.thinking else None)


def call_list(calls: Sequence[tuple[str, dict[str, Any]]], first: int = 1) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's shape, numbered from `first`."""
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for number, (name, arguments) in enumerate(calls, first)
    ]


def results(texts: Sequence[str], first: int = 1) -> list[Message]:
    """What tools said, in the order of their calls."""
    return [
        {"role": "tool", "tool_call_id": f"call_{number}", "content": text}
        for number, text in enumerate(texts, first)
    ]
