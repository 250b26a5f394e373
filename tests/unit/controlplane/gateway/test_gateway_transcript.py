import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway.chunks import Chunk, parse_chunk
from controlplane.gateway.resume import NotResumed, Transcript

BODY = b'{"seed":1,"max_tokens":9}'
ROLE = {"role": "assistant", "content": ""}


def chunk(
    delta: dict[str, Any], ids: list[int] | None, *, head: str = "one", resumed: int = 0
) -> Chunk:
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": None}
    if ids is not None:
        choice["token_ids"] = ids
    usage = {"prompt_tokens": 3, "resumed_tokens": resumed}
    fields = {"id": head, "created": head, "model": head, "choices": [choice], "usage": usage}
    return parse_chunk(json.dumps(fields).encode())


def head(it: Chunk) -> set[str]:
    return {json.loads(bytes(it.fields[name])) for name in ("id", "created", "model")}


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=3)), st.data())
def test_every_engine_is_given_all_that_was_said(
    told: list[list[int]], data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(told))))
    transcript, said = Transcript(), list[int]()
    transcript.add(chunk(ROLE, []))
    for number, ids in enumerate(told):
        resumed = 0
        if number in cuts:
            body = json.loads(transcript.resume(BODY))
            assert body.pop("resume_token_ids") == said
            assert body == json.loads(BODY)
            resumed = len(said)
        it = chunk({"content": "x"}, ids, head=f"engine {number}", resumed=resumed)
        assert transcript.add(it)
        assert head(it) == ({"one"} if cuts & set(range(number + 1)) else {f"engine {number}"})
        said += ids
    assert transcript.is_resumable
    assert transcript.token_ids.tolist() == said


@pytest.mark.parametrize("resumed", [0, 1, 3])
def test_an_answer_from_elsewhere_is_refused(resumed: int) -> None:
    transcript = Transcript()
    transcript.add(chunk({"content": "x"}, [7, 8]))
    transcript.resume(BODY)
    with pytest.raises(NotResumed):
        transcript.add(chunk({"content": "y"}, [9], resumed=resumed))


def test_the_role_is_said_once() -> None:
    transcript = Transcript()
    assert transcript.add(chunk(ROLE, []))
    transcript.resume(BODY)
    assert not transcript.add(chunk(ROLE, [], head="two"))
    assert transcript.add(chunk({"content": "x"}, [1], head="two"))


def test_before_the_first_word_there_is_nothing_to_go_on_with() -> None:
    assert Transcript().resume(BODY) == BODY


def test_an_engine_without_ids_is_followed_until_it_says_something() -> None:
    transcript = Transcript()
    transcript.add(chunk(ROLE, None))
    assert transcript.is_resumable
    transcript.add(chunk({"content": "x"}, None))
    assert not transcript.is_resumable


@pytest.mark.parametrize("delta", [{"content": "x"}, ROLE | {"content": "x"}, {"tool_calls": []}])
def test_first_words_without_ids_cannot_be_followed(delta: dict[str, Any]) -> None:
    transcript = Transcript()
    transcript.add(chunk(delta, None))
    assert not transcript.is_resumable
