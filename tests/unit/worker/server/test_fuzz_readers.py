"""Whatever a model says, at whatever token boundaries, and wherever its stream is cut: the parts of
an answer fit together."""

# ruff: noqa: RUF001 - DeepSeek spells its control tokens with U+FF5C
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.batch import TokenLogprob
from worker.encoding.chat import ChatEncoding
from worker.encoding.tokenizer import Tokenizer
from worker.request import FinishReason
from worker.server.chat import ChatReader
from worker.server.completions import CompletionReader

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HELLO = [{"role": "user", "content": "Hello"}]
PIECES = [
    "<｜DSML｜tool_calls>\n", '<｜DSML｜invoke name="f">\n', "</｜DSML｜parameter>\n",
    '<｜DSML｜parameter name="x" string="true">', '<｜DSML｜parameter name="y" string="false">',
    "</｜DSML｜invoke>\n", "</｜DSML｜tool_calls>", "</think>", "<think>", "STOP", "ST", "\n\n",
    "<", "🎉", '{"a": 1}', "text ",
]  # fmt: skip
MARKUP = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


def spoken(tokenizer: Tokenizer, text: str, cuts: set[int]) -> list[int]:
    """Tokens of `text`, with a boundary at each of `cuts` and around control tokens."""
    ids: list[int] = []
    at = 0
    for part in re.split("(</?think>|｜DSML｜)", text):
        if re.fullmatch("</?think>|｜DSML｜", part):
            ids.append(tokenizer.control_id(part))
        else:
            ends = [e - at for e in sorted(cuts) if at < e < at + len(part)]
            for start, end in zip([0, *ends], [*ends, len(part)], strict=True):
                ids += tokenizer.encode(part[start:end])
        at += len(part)
    return ids


def valid_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def chat_reader(chat: ChatEncoding, **fields: Any) -> ChatReader:
    prompt = chat.encode({"messages": HELLO, "tools": TOOLS, **fields})
    return ChatReader(lambda: chat.stream(prompt, response_id="i", model="m"), logprobs=False)


def entries(reader: Any, token_ids: list[int]) -> list[Any]:
    """One entry, or None, per token until a stop string; then the last one."""
    told = []
    for token_id in token_ids:
        told.append(reader.push(TokenLogprob(token_id, -1.0)))
        if reader.stopped:
            break
    return [*told, reader.finish(FinishReason.STOP)]


def anonymous(value: Any) -> Any:
    """Without the random ids of tool calls."""
    if isinstance(value, list):
        return [anonymous(v) for v in value]
    if isinstance(value, dict):
        return {k: anonymous(v) for k, v in value.items() if k != "id"}
    return value


@settings(max_examples=300, deadline=None)
@given(text=MARKUP.filter(valid_unicode), cuts=st.sets(st.integers(0, 200)), stop=st.booleans())
def test_token_boundaries_do_not_matter(
    chat_encoding: ChatEncoding, tokenizer: Tokenizer, text: str, cuts: set[int], stop: bool
) -> None:
    fields = {"stop": "STOP"} if stop else {}
    wholes = []
    for boundaries in (set[int](), cuts, set(range(len(text)))):
        reader = chat_reader(chat_encoding, **fields)
        reader.start([])
        entries(reader, spoken(tokenizer, text, boundaries))
        wholes.append(anonymous(reader.whole()))
    assert wholes[0] == wholes[1] == wholes[2]


@settings(max_examples=200, deadline=None)
@given(
    text=MARKUP.filter(valid_unicode),
    noise=st.lists(st.integers(0, 129_279), max_size=10),
    cut=st.integers(0, 200),
    stop=st.booleans(),
)
def test_a_reader_goes_on_where_another_was_cut(
    chat_encoding: ChatEncoding,
    tokenizer: Tokenizer,
    text: str,
    noise: list[int],
    cut: int,
    stop: bool,
) -> None:
    ids = spoken(tokenizer, text, set()) + noise
    fields = {"stop": "STOP"} if stop else {}
    for make in (
        lambda: chat_reader(chat_encoding, **fields),
        lambda: CompletionReader(tokenizer, ["STOP"] if stop else [], logprobs=True),
    ):
        first, second = make(), make()
        first.start([])
        told = entries(first, ids)
        said = ids[: len(told) - 1]
        known = said[: cut % (len(said) + 1)]
        assert second.replay(known) == len(known)
        rest = (
            entries(second, said[len(known) :])
            if not second.stopped
            else [second.finish(FinishReason.STOP)]
        )
        assert anonymous(rest) == anonymous(told[len(known) :])
        assert second.reasoning_tokens == first.reasoning_tokens
