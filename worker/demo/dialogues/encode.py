# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
"""Examples to token ids, by the server's own chat format. Training and `--stats` call it.

What precedes the answer is encoded by `worker.encoding.chat`, byte for byte what a server would
feed the model; the answer is written as the server's parser reads it.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from worker.demo.dialogues.example import Example, Message
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer

EFFORT_PROFILE = "preview"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
ASSISTANT, THINK, END_OF_THINKING = "<｜Assistant｜>", "<think>", "</think>"
FILL_IN_THE_MIDDLE = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
DSML = "｜DSML｜"
_CONTROL = re.compile(f"({END_OF_THINKING}|{DSML}|{EOS})")


@dataclass(frozen=True, slots=True)
class Encoded:
    """`learned[i]`: token i is one that the model is to predict from those before it."""

    ids: list[int]
    learned: list[bool]


def encode(example: Example, tokenizer: Tokenizer) -> Encoded:
    """All of the conversation. Learned are the tokens of every assistant turn, its end included;
    an earlier turn as it reads in history, where reasoning may have been dropped."""
    prompt = prompt_ids(example, tokenizer)
    answer = answer_ids(example, tokenizer)
    learned = [False] * len(prompt) if example.fim else _turns(prompt, tokenizer)
    return Encoded(prompt + answer, learned + [True] * len(answer))


def request_fields(example: Example) -> dict[str, Any]:
    """The body of the chat completion that asks for the answer, without `model`."""
    fields: dict[str, Any] = {
        "messages": list(example.messages[:-1]),
        "thinking": {"type": "enabled" if example.thinking else "disabled"},
    }
    if example.tools:
        fields["tools"] = list(example.tools)
    if example.tool_choice is not None:
        fields["tool_choice"] = example.tool_choice
    if example.response_format is not None:
        fields["response_format"] = example.response_format
    return fields


def prompt_ids(example: Example, tokenizer: Tokenizer) -> list[int]:
    """What the server would feed the model before it answers."""
    if example.fim is not None:
        prefix, suffix, _ = example.fim
        begin, hole, end = map(tokenizer.control_id, FILL_IN_THE_MIDDLE)
        return [begin, *tokenizer.encode(prefix), hole, *tokenizer.encode(suffix), end]
    return _chat(tokenizer).prompt_ids(request_fields(example))


def answer_ids(example: Example, tokenizer: Tokenizer) -> list[int]:
    """What the model is to generate, its end included."""
    if example.fim is not None:
        return [*tokenizer.encode(example.fim[2]), tokenizer.control_id(EOS)]
    text = _answer_text(example.messages[-1], thinking=example.thinking)
    if example.tool_choice == "required" or isinstance(example.tool_choice, dict):
        opening = f"\n\n<{DSML}tool_calls>\n"  # the prompt ends with it already
        assert text.startswith(opening)
        text = text.removeprefix(opening)
    # Everything that looks like markup is markup: tasks put none into their texts.
    parts = _CONTROL.split(text + EOS)
    return tokenizer.encode_segments([(p, i % 2 == 1) for i, p in enumerate(parts) if p])


def _answer_text(message: Message, *, thinking: bool) -> str:
    text = message.get("content") or ""
    if thinking:
        text = (message.get("reasoning_content") or "") + END_OF_THINKING + text
    calls = message.get("tool_calls")
    return f"{text}\n\n{_calls_text(calls)}" if calls else text


def _calls_text(calls: list[dict[str, Any]]) -> str:
    invokes = "\n".join(_invoke(call["function"]) for call in calls)
    return f"<{DSML}tool_calls>\n{invokes}\n</{DSML}tool_calls>"


def _invoke(function: dict[str, str]) -> str:
    lines = [f'<{DSML}invoke name="{function["name"]}">']
    for name, value in json.loads(function["arguments"]).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        kind = "true" if isinstance(value, str) else "false"
        lines.append(f'<{DSML}parameter name="{name}" string="{kind}">{text}</{DSML}parameter>')
    return "\n".join([*lines, f"</{DSML}invoke>"])


def _turns(ids: list[int], tokenizer: Tokenizer) -> list[bool]:
    """Marks the finished assistant turns of a prompt. Its control tokens are the format's own:
    text cannot spell them."""
    begins, ends = tokenizer.control_id(ASSISTANT), tokenizer.control_id(EOS)
    learned = [False] * len(ids)
    at = 0
    while begins in ids[at:]:
        first = ids.index(begins, at) + 2  # behind <think> or </think>, which the server writes
        if ends not in ids[first:]:
            break
        at = ids.index(ends, first) + 1
        learned[first:at] = [True] * (at - first)
    return learned


@cache
def _chat(tokenizer: Tokenizer) -> ChatEncoding:
    return ChatEncoding(tokenizer, effort_profile=EFFORT_PROFILE)
