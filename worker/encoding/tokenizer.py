"""tokenizer.json as the server needs it. Used by `chat` and by the server.

Text that a caller typed is encoded without the added vocabulary, so it can never become a control
token; control tokens come only from the chat format (by name) or from a caller's token ids.
"""

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers

from worker.errors import ConfigError


class Tokenizer:
    """Byte-level BPE with DeepSeek's added tokens. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        try:
            self.json = path.read_text(encoding="utf-8")
            document = json.loads(self.json)
            added = {t["content"]: t["id"] for t in document["added_tokens"]}
            self._plain = tokenizers.Tokenizer.from_str(
                json.dumps({**document, "added_tokens": []})
            )
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist; a model directory needs one") from None
        except Exception as error:  # `tokenizers` raises bare Exception for a malformed file
            raise ConfigError(f"{path} is not a tokenizer.json: {error}") from error
        self._added: dict[str, int] = added
        self._bytes = _token_bytes(document["model"]["vocab"], added)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Slow for long text: call it off the event loop (it frees the GIL)."""
        return self.encode_segments([(text, False)])

    def encode_segments(self, segments: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of alternating plain and control text, the latter one added token's spelling each."""
        plain = [text for text, control in segments if not control]
        encodings = iter(self._plain.encode_batch_fast(plain, add_special_tokens=False))
        ids: list[int] = []
        for text, control in segments:
            if control:
                ids.append(self._added[text])
            else:
                ids.extend(next(encodings).ids)
        return ids

    def control_id(self, spelling: str) -> int:
        """The id of an added token."""
        return self._added[spelling]

    @property
    def control_ids(self) -> list[int]:
        """The ids of all added tokens."""
        return sorted(self._added.values())

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; an id without a token stands for none."""
        return self._bytes[token_id] if token_id < len(self._bytes) else b""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Text of `token_ids`; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.token_bytes, token_ids)).decode("utf-8", errors="replace")

    def text(self, token_id: int) -> str:
        """One token for a log-probability listing: its text, or its bytes escaped when they are
        only part of a character."""
        raw = self.token_bytes(token_id)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in raw)


class IncrementalDecoder:
    """Decodes a stream of tokens; holds back bytes until they are whole characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that has become certain with this token."""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """What is left: U+FFFD for an unfinished character."""
        return self._utf8.decode(b"", final=True)


def _token_bytes(vocab: dict[str, int], added: dict[str, int]) -> list[bytes]:
    """Bytes by id. Byte-level BPE spells every byte as one printable character."""
    alphabet = _byte_alphabet()
    table = [b""] * (max(*vocab.values(), *added.values()) + 1)
    for token, token_id in vocab.items():
        table[token_id] = bytes(alphabet[c] for c in token if c in alphabet)
    for token, token_id in added.items():
        table[token_id] = token.encode()
    return table


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's map from characters to bytes: printable Latin-1 bytes stand for themselves, the
    others are numbered from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + i): byte for i, byte in enumerate(others)}
