from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.gateway import sse
from controlplane.gateway.sse import Event, EventSplitter, EventTooLarge

STREAM = (
    b'data: {"a":1}\n\n: keep-alive\n\ndata:no space\r\n\r\nid: 3\r\ndata: one\r\ndata: two\r\n\r\n'
    b"event: x\n\ndata: last\r\rdata: [DONE]\n\n"
)
EVENTS = [
    Event(b'{"a":1}'),
    Event(None, b": keep-alive"),
    Event(b"no space"),
    Event(b"one\ntwo"),
    Event(b"last"),
    Event(b"[DONE]"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    splitter = EventSplitter()
    events = [
        event for start, stop in pairwise(edges) for event in splitter.feed(STREAM[start:stop])
    ]
    assert events == EVENTS


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_split_anywhere_give_the_same_events(data: bytes, cut: int) -> None:
    whole, parts = EventSplitter(), EventSplitter()
    # A lone CR at the end waits for its LF, so both streams end in a line feed.
    expected = whole.feed(data + b"\n")
    assert parts.feed(data[:cut]) + parts.feed(data[cut:] + b"\n") == expected


def test_what_is_encoded_is_read_back() -> None:
    data = sse.encode(b"{}") + sse.encode_comment(b": hi") + sse.encode(sse.DONE)
    assert EventSplitter().feed(data) == [Event(b"{}"), Event(None, b": hi"), Event(b"[DONE]")]


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(EventTooLarge):
        splitter.feed(b"x" * (sse.MAX_EVENT_BYTES + 1))
