"""Bills from an engine's journal what a gateway's lost journal no longer tells. Called by `jobs`.

A gateway that died with its disk leaves holds and nothing else. Where an engine has written down
what such a request used, that is its bill; where nobody has, `settlement.release_dead` waives it.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.accounts.models import GatewayEpoch, Hold
from controlplane.billing.reconcile.models import WitnessedAttempt
from controlplane.billing.reconcile.verdict import Attempt, witnessed
from controlplane.pricing.models import PriceVersion
from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage
from controlplane.usage.traces import LOST


def stage_witnessed(session: Session, limit: int = 500) -> int:
    """Stage requests of closed epochs that only engines know of; return how many were staged."""
    found = session.execute(
        select(Hold, PriceVersion.path, WitnessedAttempt)
        .join(GatewayEpoch, GatewayEpoch.id == Hold.epoch_id)
        .join(PriceVersion, PriceVersion.id == Hold.price_version_id)
        .join(WitnessedAttempt, WitnessedAttempt.request_id == Hold.request_id)
        .where(
            Hold.state == "open",
            GatewayEpoch.closed_at.is_not(None),
            ~select(StagedUsage).where(StagedUsage.request_id == Hold.request_id).exists(),
        )
        .order_by(Hold.request_id, WitnessedAttempt.started_at)
        .limit(limit)
    )
    attempts: dict[uuid.UUID, list[WitnessedAttempt]] = defaultdict(list)
    holds: dict[uuid.UUID, tuple[Hold, str]] = {}
    for hold, path, attempt in found:
        holds[hold.request_id] = hold, path
        attempts[hold.request_id].append(attempt)
    rows = [_row(*holds[request_id], attempts[request_id]) for request_id in holds]
    if not rows:
        return 0
    statement = insert(StagedUsage).on_conflict_do_nothing()
    return len(session.scalars(statement.returning(StagedUsage.request_id), rows).all())


def _row(hold: Hold, path: str, attempts: Sequence[WitnessedAttempt]) -> dict[str, object]:
    usage = witnessed(
        [
            Attempt(
                TokenUsage(it.hit_tokens, it.miss_tokens, it.output_tokens, it.reasoning_tokens)
            )
            for it in attempts
        ]
    )
    return {
        "request_id": hold.request_id,
        "tenant_id": hold.tenant_id,
        "api_key_id": hold.api_key_id,
        "model": attempts[0].model,
        "path": path,
        "replica": attempts[-1].replica,
        # What only the gateway knew.
        "thinking": usage.reasoning_tokens > 0,
        "streamed": True,
        "hit_tokens": usage.hit_tokens,
        "miss_tokens": usage.miss_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "finish_reason": LOST,
        "started_at": attempts[0].started_at,
        "finished_at": attempts[-1].ended_at,
        "price_version_id": hold.price_version_id,
        "band": hold.band,
    }
