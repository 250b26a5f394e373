"""The journal on disk: frames in segment files, and reading them back.

A frame is `u32 length, u32 crc32(payload), payload` in little endian; the payload is one record of
`records` in msgpack. Written by `journal`, read by `recovery` and by `billing.restoring`. A torn
last frame is what a crash leaves and is passed over; a bad frame with more behind it is damage and
is reported.
"""

import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from controlplane.usage.records import Final, Opened, Record
from controlplane.usage.traces import Trace

SUFFIX = ".journal"

_HEADER = struct.Struct("<II")
_MAX_PAYLOAD_BYTES = 2**20
_BUFFER_BYTES = 2**18
_ENCODER = msgspec.msgpack.Encoder(uuid_format="bytes")
_DECODER = msgspec.msgpack.Decoder(Record)


@dataclass(frozen=True, slots=True)
class Damage:
    """A segment that cannot be read beyond `offset_bytes`, though it goes on."""

    segment: Path
    offset_bytes: int


def frame(record: Record) -> bytes:
    """Return the record as one frame."""
    payload = _ENCODER.encode(record)
    assert len(payload) <= _MAX_PAYLOAD_BYTES
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment; paths sort in the order they were written."""
    return folder / f"{number:010d}{SUFFIX}"


def ends(*folders: Path, damages: list[Damage]) -> Iterator[Trace]:
    """Yield the requests of one epoch, each when it has ended, and last those that never did.

    Of all segments in all its folders, read once and in the order they were written: what is in
    memory are the requests that ran at one moment, however long the journal. What cannot be read
    is added to `damages`. A record whose request was opened in a segment that is gone is passed
    over: a segment is only put aside when every request in it has been staged. Copies of segments
    may tell a request again.
    """
    running: dict[uuid.UUID, Trace] = {}
    segments = (path for folder in folders for path in folder.glob(f"*{SUFFIX}"))
    for path in sorted(segments, key=lambda path: path.name):
        for record in _records(path, damages):
            if isinstance(record, Opened):
                running.setdefault(record.request_id, Trace(record)).opened = record
            elif trace := running.get(record.request_id):
                trace.apply(record)
                if isinstance(record, Final):
                    yield running.pop(record.request_id)
    yield from running.values()


def _records(path: Path, damages: list[Damage]) -> Iterator[Record]:
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        size_bytes, offset = os.fstat(file.fileno()).st_size, 0
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            payload = file.read(length) if length <= _MAX_PAYLOAD_BYTES else b""
            if not payload or zlib.crc32(payload) != checksum:
                # Cut short by the end of the file, or pages that never reached the disk.
                if offset + _HEADER.size + length < size_bytes and not _is_blank(file, offset):
                    damages.append(Damage(path, offset))
                return
            try:
                yield _DECODER.decode(payload)
            except msgspec.DecodeError:
                damages.append(Damage(path, offset))
                return
            offset += _HEADER.size + length


def _is_blank(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return not any(any(part) for part in iter(lambda: file.read(_BUFFER_BYTES), b""))
