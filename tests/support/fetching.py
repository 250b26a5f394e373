"""Fetching from the server of `weights_server`, as its tests do."""

import random
from pathlib import Path

from support.weights_server import BUCKET, PREFIX, REPO, WeightsServer

from worker.weights.bucket import Bucket
from worker.weights.fetch import Fetch
from worker.weights.hub import Hub
from worker.weights.source import Source

FILES = {
    "config.json": b'{"model_type": "deepseek_v4"}',
    "empty.txt": b"",
    "model-1.safetensors": random.Random(1).randbytes(3_000_000),
    "model-2.safetensors": random.Random(2).randbytes(2_500_001),
    "sub/a file.json": b"{}",
}


def hub(server: WeightsServer, token: str = "") -> Hub:
    return Hub(REPO, endpoint=server.url, token=token)


def bucket(server: WeightsServer) -> Bucket:
    return Bucket(f"s3://{BUCKET}/{PREFIX}", endpoint=server.url)


def fetch(source: Source, directory: Path, digest: str = "") -> bool:
    return Fetch(source, directory, digest=digest, first_pause_seconds=0.01).run()


def content_of(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}
