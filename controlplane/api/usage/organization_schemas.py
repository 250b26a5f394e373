"""What the organization's usage and costs look like: OpenAI's shapes, and exact sums beside them.

Called by `organization`, and by `organization_answers` for their fields. OpenAI's clients read
these; the fields that they do not know are ours.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field

from controlplane.api.usage.buckets import Window
from controlplane.billing.costs import CostGroup
from controlplane.money import P_PER_USD, p_to_usd

Result = TypeVar("Result", bound=BaseModel)


class Bucket(BaseModel, Generic[Result]):
    """The results of one stretch of time; none when nothing happened in it."""

    object: Literal["bucket"] = "bucket"
    start_time: int = Field(description="Unix seconds, inclusive")
    end_time: int = Field(description="Unix seconds, exclusive")
    results: list[Result]


class Buckets(BaseModel, Generic[Result]):
    """One page of buckets, oldest first; pass `next_page` as `page` for the rest."""

    object: Literal["page"] = "page"
    data: list[Bucket[Result]]
    has_more: bool
    next_page: str | None

    @classmethod
    def of(cls, window: Window, results: Mapping[datetime, list[Result]]) -> Self:
        """Return the page of a window; `results` are by the first moment of their bucket."""
        return cls(
            data=[
                Bucket(
                    start_time=int(start.timestamp()),
                    end_time=int((start + window.width).timestamp()),
                    results=results.get(start, []),
                )
                for start in window.starts()
            ],
            has_more=window.next_page is not None,
            next_page=window.next_page,
        )


class CompletionsUsage(BaseModel):
    """Usage of a bucket by the fields of `group_by`; the other such fields are null."""

    object: Literal["organization.usage.completions.result"] = (
        "organization.usage.completions.result"
    )
    input_tokens: int = Field(description="tokens of prompts, cached ones too")
    input_cached_tokens: int = Field(description="tokens of prompts that hit the cache")
    input_uncached_tokens: int = Field(description="tokens of prompts that missed the cache")
    output_tokens: int = Field(description="tokens generated, reasoning too")
    output_reasoning_tokens: int = Field(description="the part of output_tokens that is reasoning")
    num_model_requests: int
    cost_usd: str = Field(description="what they cost, an exact decimal")
    cost_p: str = Field(description="the same in picodollars")
    project_id: uuid.UUID | None = None
    api_key_id: uuid.UUID | None = None
    model: str | None = None
    path: str | None = Field(default=None, description="serverless or dedicated")
    band: str | None = Field(default=None, description="the price's band of time at admission")
    thinking: bool | None = None


class Amount(BaseModel):
    """Money as OpenAI tells it. A JSON number is not exact; `amount_usd` beside it is."""

    value: float
    currency: Literal["usd"] = "usd"


class Costs(BaseModel):
    """Costs of a day by the fields of `group_by`; what was given back is negative."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    amount_usd: str = Field(description="the amount, an exact decimal")
    amount_p: str = Field(description="the same in picodollars")
    project_id: uuid.UUID | None = Field(
        default=None, description="null for what is no project's, as GPU time"
    )
    api_key_id: uuid.UUID | None = None
    line_item: str | None = Field(
        default=None, description="a model and its path, a GPU configuration, storage, ..."
    )

    @classmethod
    def of(cls, group: CostGroup, amount_p: int) -> Self:
        return cls(
            amount=Amount(value=amount_p / P_PER_USD),
            amount_usd=p_to_usd(amount_p),
            amount_p=str(amount_p),
            project_id=group.project_id,
            api_key_id=group.api_key_id,
            line_item=group.line_item,
        )


CompletionsPage = Buckets[CompletionsUsage]
CostsPage = Buckets[Costs]
