"""The journal on disk: frames in segment files, and reading them back.

A frame is `u32 length, u32 crc32(payload), payload` in little endian; the payload is one record of
`records` in msgpack. Written by `journal`, read by `recovery`. A torn last frame is what a crash
leaves and is passed over; a bad frame with more behind it is damage and is reported.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from controlplane.usage.records import Opened, Record
from controlplane.usage.traces import Trace

SUFFIX = ".journal"

_HEADER = struct.Struct("<II")
_MAX_PAYLOAD_BYTES = 2**20
_ENCODER = msgspec.msgpack.Encoder(uuid_format="bytes")
_DECODER = msgspec.msgpack.Decoder(Record)


@dataclass(frozen=True, slots=True)
class Damage:
    """A segment that cannot be read beyond `offset_bytes`, though it goes on."""

    segment: Path
    offset_bytes: int


@dataclass(slots=True)
class Replay:
    """What a folder of segments tells."""

    traces: dict[uuid.UUID, Trace] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)


def frame(record: Record) -> bytes:
    """Return the record as one frame."""
    payload = _ENCODER.encode(record)
    assert len(payload) <= _MAX_PAYLOAD_BYTES
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment; paths sort in the order they were written."""
    return folder / f"{number:010d}{SUFFIX}"


def read(*folders: Path) -> Replay:
    """Fold every segment of one epoch, in all its folders, into one trace per request.

    A record whose request was opened in a segment that is gone is passed over: a segment is only
    deleted when every request in it has been staged.
    """
    replay = Replay()
    segments = (path for folder in folders for path in folder.glob(f"*{SUFFIX}"))
    for path in sorted(segments, key=lambda path: path.name):
        for record in _records(path, replay.damages):
            if isinstance(record, Opened):
                replay.traces.setdefault(record.request_id, Trace(record)).opened = record
            elif record.request_id in replay.traces:
                replay.traces[record.request_id].apply(record)
    return replay


def _records(path: Path, damages: list[Damage]) -> Iterator[Record]:
    data = memoryview(path.read_bytes())
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, offset)
        payload = data[offset + _HEADER.size : offset + _HEADER.size + length]
        if not 0 < length <= _MAX_PAYLOAD_BYTES or zlib.crc32(payload) != checksum:
            if not _is_torn_tail(data[offset:], length):
                damages.append(Damage(path, offset))
            return
        try:
            yield _DECODER.decode(payload)
        except msgspec.DecodeError:
            damages.append(Damage(path, offset))
            return
        offset += _HEADER.size + length


def _is_torn_tail(rest: memoryview, length: int) -> bool:
    """A frame cut short by the end of the file, or pages that never reached the disk."""
    return _HEADER.size + length >= len(rest) or not any(rest)
