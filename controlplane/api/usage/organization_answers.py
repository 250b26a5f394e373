"""Pages of usage as JSON, written without a model for every row. Called by `organization`.

1,440 buckets by key are tens of thousands of results, and building and serialising a pydantic model
of each would take longer than the database needs to sum them up. The fields are the schema's own.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from controlplane.api.usage.buckets import Window
from controlplane.api.usage.organization_schemas import Bucket, CompletionsPage, CompletionsUsage
from controlplane.money import p_to_usd
from controlplane.usage.rollups import SUMS

_OBJECT: Final = "organization.usage.completions.result"
_Page = msgspec.defstruct("_Page", CompletionsPage.model_fields)
_Bucket = msgspec.defstruct("_Bucket", Bucket.model_fields)
_Usage = msgspec.defstruct(
    "_Usage",
    [
        # Only the fields of `group_by` may be left out.
        (name, Any, None) if field.default is None else (name, Any)
        for name, field in CompletionsUsage.model_fields.items()
    ],
)


def usage_page(window: Window, rows: Iterable[Row[Any]], group_by: Sequence[str]) -> bytes:
    """Return the `CompletionsPage` of a window.

    Args:
        rows: of `rollups.sums` with this `group_by`.
    """
    results: dict[datetime, list[msgspec.Struct]] = defaultdict(list)
    for row in rows:
        start, groups = row[0], row[1 : -len(SUMS)]
        requests, hit, miss, output, reasoning, charge_p = row[-len(SUMS) :]
        usage = _Usage(
            *(_OBJECT, hit + miss, hit, miss, output, reasoning, requests),
            *(p_to_usd(charge_p), str(charge_p)),
        )
        for name, value in zip(group_by, groups, strict=True):
            setattr(usage, name, value)
        results[start].append(usage)
    buckets = [
        _Bucket(
            "bucket",
            int(start.timestamp()),
            int((start + window.width).timestamp()),
            results.get(start, ()),
        )
        for start in window.starts()
    ]
    next_page = window.next_page
    return msgspec.json.encode(_Page("page", buckets, next_page is not None, next_page))
