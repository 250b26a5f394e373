# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.batch import TokenLogprob
from worker.demo.dialogues.chance import Chance
from worker.demo.dialogues.encode import answer_ids, encode, prompt_ids, request_fields
from worker.demo.dialogues.example import Example
from worker.demo.dialogues.mixture import WEIGHTS
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.request import FinishReason

NUMBERS = st.integers(0, 10**9)
CHAT_TASKS = sorted((task for task in WEIGHTS if task.__name__ != "fim"), key=lambda t: t.__name__)
Task = Callable[[Chance], Example]


QUICK = settings(max_examples=25, deadline=None)  # a tokenizer loads on the first


def made(task: Task, number: int, *, thinking: bool) -> Example:
    chance = Chance(0, number, "held_out" if number % 2 else "train")
    chance.thinking = thinking
    return task(chance)


def parsed(chat_encoding: ChatEncoding, example: Example, ids: list[int]) -> dict[str, Any]:
    stream = chat_encoding.stream(
        chat_encoding.encode(request_fields(example)), response_id="id", model="m"
    )
    stream.start()
    for token_id in ids:
        stream.push(TokenLogprob(token_id, None, []))
    stream.finish(FinishReason.STOP)
    message: dict[str, Any] = stream.response()["choices"][0]["message"]
    return message


def calls(message: dict[str, Any]) -> list[tuple[str, Any]]:
    functions = [call["function"] for call in message.get("tool_calls") or []]
    return [(f["name"], json.loads(f["arguments"])) for f in functions]


@pytest.mark.parametrize("task", CHAT_TASKS, ids=lambda task: task.__name__)
@QUICK
@given(number=NUMBERS, thinking=st.booleans())
def test_the_server_reads_back_what_is_learned(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, task: Task, number: int, thinking: bool
) -> None:
    example = made(task, number, thinking=thinking)
    encoded = encode(example, tokenizer)
    prompt = chat_encoding.encode(request_fields(example)).token_ids
    answer = encoded.ids[len(prompt) :]
    assert encoded.ids[: len(prompt)] == prompt
    assert all(encoded.learned[len(prompt) :])
    assert tokenizer.token_bytes(answer[-1]).decode() == "<｜end▁of▁sentence｜>"
    told, wanted = parsed(chat_encoding, example, answer[:-1]), example.messages[-1]
    assert (told.get("content") or "") == wanted["content"]
    assert (told.get("reasoning_content") or "") == wanted.get("reasoning_content", "")
    assert calls(told) == calls(wanted)


@pytest.mark.parametrize("task", ["json_schema", "json_object", "tool_call", "parallel_calls"])
@QUICK
@given(number=NUMBERS, thinking=st.booleans())
def test_enforced_forms_let_every_learned_token_pass(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, task: str, number: int, thinking: bool
) -> None:
    (made_by,) = [t for t in WEIGHTS if t.__name__ == task]
    example = made(made_by, number, thinking=thinking)
    grammar = chat_encoding.encode(request_fields(example)).grammar
    answer = answer_ids(example, tokenizer)
    for i, token_id in enumerate(answer if grammar else []):
        allowed = grammar.allowed(answer[:i])
        assert allowed[token_id // 8] >> token_id % 8 & 1, tokenizer.decode(answer[: i + 1])


@QUICK
@given(number=NUMBERS)
def test_earlier_turns_are_learned_from_behind_their_opening_to_their_end(
    tokenizer: Tokenizer, number: int
) -> None:
    (recall,) = [t for t in WEIGHTS if t.__name__ == "recall"]
    example = made(recall, number, thinking=False)
    encoded = encode(example, tokenizer)
    learned = [i for i, is_learned in zip(encoded.ids, encoded.learned, strict=True) if is_learned]
    said = [m["content"] for m in example.messages if m["role"] == "assistant"]
    assert tokenizer.decode(learned).split("<｜end▁of▁sentence｜>") == [*said, ""]


@QUICK
@given(number=NUMBERS)
def test_history_reads_as_its_answers_were_learned(tokenizer: Tokenizer, number: int) -> None:
    (tool_call,) = [t for t in WEIGHTS if t.__name__ == "tool_call"]
    example = made(tool_call, number, thinking=True)
    result = {"role": "tool", "tool_call_id": "call_1", "content": "done"}
    answer = {"role": "assistant", "content": "Done.", "reasoning_content": "I have it."}
    longer = Example(
        "tool_followup", (*example.messages, result, answer), example.tools, thinking=True
    )
    first = encode(example, tokenizer).ids
    assert prompt_ids(longer, tokenizer)[: len(first)] == first


@QUICK
@given(number=NUMBERS)
def test_a_middle_is_learned_behind_prefix_and_suffix(tokenizer: Tokenizer, number: int) -> None:
    (fim,) = [t for t in WEIGHTS if t.__name__ == "fim"]
    example = made(fim, number, thinking=False)
    assert example.fim is not None
    encoded = encode(example, tokenizer)
    prefix, suffix, middle = example.fim
    assert tokenizer.decode(encoded.ids) == (
        f"<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>{middle}<｜end▁of▁sentence｜>"
    )
    assert sum(encoded.learned) == len(tokenizer.encode(middle)) + 1
