"""What may be asked of the organization's usage and costs. Called by `organization`.

Lists come under two names: OpenAI's clients write `group_by[]`, people `group_by`.
"""

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.schemas import Name
from controlplane.api.usage.buckets import COST_WIDTH, USAGE_WIDTHS, BucketWidth, Window, window
from controlplane.usage.rollups import Filters

UsageGroup = Literal["project_id", "api_key_id", "model", "path", "band", "thinking"]
CostsGroup = Literal["project_id", "api_key_id", "line_item"]

_LAST_SECOND = 250_000_000_000  # in the year 9892
_MANY = 1000
_AS_CLIENTS_WRITE_IT = "the same, as OpenAI's clients write it"
_Seconds = Annotated[int, Field(ge=0, le=_LAST_SECOND)]
_Ids = Annotated[list[uuid.UUID], Field(max_length=_MANY)]
_Names = Annotated[list[Name], Field(max_length=_MANY)]


def _bracketed(name: str) -> Any:
    return Field(default=[], alias=f"{name}[]", description=_AS_CLIENTS_WRITE_IT)


class _Asked(BaseModel):
    """A question about a stretch of time; an unknown parameter is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid")

    start_time: _Seconds = Field(description="Unix seconds, inclusive")
    end_time: _Seconds | None = Field(default=None, description="Unix seconds, exclusive; else now")
    limit: int | None = Field(default=None, ge=1, description="most buckets on this page")
    page: str | None = Field(
        default=None, max_length=64, description="`next_page` of the page before"
    )
    project_ids: _Ids = Field(default=[], description="only these projects; else all")
    project_ids_: _Ids = _bracketed("project_ids")
    api_key_ids: _Ids = Field(default=[], description="only these keys; else all")
    api_key_ids_: _Ids = _bracketed("api_key_ids")

    def _end(self) -> int:
        # A bucket that has begun is told, so the moment itself is inside.
        return int(time.time()) + 1 if self.end_time is None else self.end_time


class UsageQuery(_Asked):
    """A question about tokens."""

    bucket_width: BucketWidth = Field(
        default="1d", description="minutes reach as far back as single requests are kept"
    )
    group_by: list[UsageGroup] = Field(default=[], description="what to tell apart")
    group_by_: list[UsageGroup] = _bracketed("group_by")
    models: _Names = Field(default=[], description="only these models; else all")
    models_: _Names = _bracketed("models")

    @property
    def groups(self) -> list[str]:
        return _distinct(self.group_by, self.group_by_)

    @property
    def filters(self) -> Filters:
        return Filters(
            project_ids=_distinct(self.project_ids, self.project_ids_),
            api_key_ids=_distinct(self.api_key_ids, self.api_key_ids_),
            models=_distinct(self.models, self.models_),
        )

    def window(self) -> Window:
        """Return the page that is asked for.

        Raises:
            UnprocessableRequest: see `buckets.window`.
        """
        return window(
            start_time=self.start_time,
            end_time=self._end(),
            width=USAGE_WIDTHS[self.bucket_width],
            limit=self.limit,
            page=self.page,
        )


class CostsQuery(_Asked):
    """A question about money."""

    bucket_width: Literal["1d"] = "1d"
    group_by: list[CostsGroup] = Field(default=[], description="what to tell apart")
    group_by_: list[CostsGroup] = _bracketed("group_by")

    @property
    def groups(self) -> list[str]:
        return _distinct(self.group_by, self.group_by_)

    @property
    def filters(self) -> Filters:
        return Filters(
            project_ids=_distinct(self.project_ids, self.project_ids_),
            api_key_ids=_distinct(self.api_key_ids, self.api_key_ids_),
        )

    def window(self) -> Window:
        """Return the page that is asked for.

        Raises:
            UnprocessableRequest: see `buckets.window`.
        """
        return window(
            start_time=self.start_time,
            end_time=self._end(),
            width=COST_WIDTH,
            limit=self.limit,
            page=self.page,
        )


def _distinct(*lists: list[Any]) -> list[Any]:
    return list(dict.fromkeys(item for items in lists for item in items))
