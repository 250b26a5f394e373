"""What an answer has said so far, so that another engine can go on with it; pure.

Called by `generation`, which shows it every chunk before the client gets it. The ids of the tokens
said are all that another engine needs: with them and the request, seed included, it comes to the
same state and says what the first would have said.
"""

from array import array

import msgspec

from controlplane.gateway.chunks import Chunk, MalformedChunk

# What must not change in mid-stream, whichever engine speaks.
_HEAD_FIELDS = ("id", "created", "model", "system_fingerprint")


class NotResumed(Exception):
    """An engine began an answer of its own instead of going on with the one it was given."""


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


_CHOICES = msgspec.json.Decoder(list[_Choice])


class Transcript:
    """One answer as its client knows it, on however many engines it is made.

    `is_resumable` is False from the first chunk on that says something without its token ids.
    """

    def __init__(self) -> None:
        self.token_ids = array("I")
        self.is_resumable = True
        self._head: dict[str, msgspec.Raw] = {}
        self._is_joining = False  # an engine that goes on is about to say its first words
        self._has_moved = False

    def resume(self, body: bytes) -> bytes:
        """Return the request `body`, a JSON object, as one to go on from here.

        The next chunk is taken to be the first of the engine that gets it.
        """
        assert self.is_resumable
        self._is_joining = self._has_moved = True
        if not self._head:
            return body
        ids = msgspec.json.encode(self.token_ids.tolist())
        return body[:-1] + b',"resume_token_ids":' + ids + b"}"

    def add(self, chunk: Chunk) -> bool:
        """Take in the next chunk and give it the answer's head; False if the client has had it.

        Raises:
            NotResumed: it belongs to another answer.
            MalformedChunk: a delta of another shape.
        """
        if self._is_joining:
            self._is_joining = False
            if chunk.resumed_tokens != len(self.token_ids):
                raise NotResumed("the engine did not go on where the other had ended")
            if self._head and chunk.has_choices and _only_opens(chunk):
                return False
        if self._has_moved:
            chunk.fields.update(self._head)
        if chunk.token_ids is not None:
            self.token_ids.extend(chunk.token_ids)
        elif chunk.has_choices and (self._head or not _only_opens(chunk)):
            self.is_resumable = False
        if not self._head:
            self._head = {name: chunk.fields[name] for name in _HEAD_FIELDS if name in chunk.fields}
        return True


def _only_opens(chunk: Chunk) -> bool:
    """Whether a chunk says who speaks and nothing else."""
    try:
        choices = _CHOICES.decode(chunk.fields["choices"])
    except msgspec.DecodeError as error:
        raise MalformedChunk(str(error)) from error
    return not chunk.token_ids and all(
        choice.delta.role is not None
        and choice.finish_reason is None
        and not (choice.delta.content or choice.delta.reasoning_content or choice.delta.tool_calls)
        for choice in choices
    )
