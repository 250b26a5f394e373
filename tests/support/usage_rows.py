"""Rows of the worker's usage journal."""

from dataclasses import replace
from typing import Any

from worker.server.journal_store import Row

_ROW = Row(
    attempt_id="a",
    request_id="r",
    model="m",
    started_us=1,
    prompt_tokens=3,
    prompt_cache_hit_tokens=1,
    prompt_cache_miss_tokens=2,
    completion_tokens=0,
    reasoning_tokens=0,
    resumed_tokens=0,
    finish_reason="running",
)


def usage_row(attempt_id: str, request_id: str, **fields: Any) -> Row:
    """A row of an attempt at a request."""
    return replace(_ROW, attempt_id=attempt_id, request_id=request_id, **fields)
