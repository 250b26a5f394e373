"""Server-sent events, taken apart and put together; pure. Called by `generation` and `serving`.

Replies never carry `id:`, `event:` or `retry:` lines: the official OpenAI client, having seen one,
turns the blank line after a comment into an empty event and fails on it.
"""

from dataclasses import dataclass

DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 2**20


class EventTooLarge(Exception):
    """An engine sent an event without end."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data without the `data:` prefix, or the lines of a comment."""

    data: bytes | None
    comment: bytes = b""


class EventSplitter:
    """Cuts a byte stream into events, whatever the boundaries of its reads."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes.

        Raises:
            EventTooLarge: an unfinished event is longer than `MAX_EVENT_BYTES`.
        """
        text = self._rest + data
        held_back = b""
        if b"\r" in text:
            # A trailing CR may be the first half of a CRLF whose LF is still on its way.
            if text.endswith(b"\r"):
                text, held_back = text[:-1], b"\r"
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = text.split(b"\n\n")
        if len(rest) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES} bytes")
        self._rest = rest + held_back
        return [event for block in blocks if (event := _parse(block)) is not None]


def _parse(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block[6:])
    data: list[bytes] = []
    comments: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b":"):
            comments.append(line)
    if data:
        return Event(b"\n".join(data))
    return Event(None, b"\n".join(comments)) if comments else None


def encode(data: bytes) -> bytes:
    """Return the bytes of an event that carries one line of `data`."""
    return b"data: " + data + b"\n\n"


def encode_comment(comment: bytes) -> bytes:
    """Return the bytes of a comment, given with its leading colon."""
    return comment + b"\n\n"
