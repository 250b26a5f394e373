"""Money that nobody is looking after: what should have moved by now. Called by `flashplane doctor`.

Everything here passes by itself in seconds while gateways and jobs run, but for what waits for a
person.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

# Jobs settle and release each second; a restart of theirs takes less than this.
PATIENCE_SECONDS = 60.0

_COUNTS = text("""
    SELECT (SELECT count(*) FROM usage_staging WHERE rejected IS NOT NULL),
           (SELECT count(*) FROM usage_staging WHERE rejected IS NULL AND staged_at < :late),
           (SELECT count(*) FROM holds h JOIN gateway_epochs e ON e.id = h.epoch_id
            WHERE h.state = 'open' AND e.closed_at < :late AND NOT EXISTS
                (SELECT FROM usage_staging s WHERE s.request_id = h.request_id)),
           (SELECT count(*) FROM reconciliation_findings WHERE explanation IS NULL),
           (SELECT count(*) FROM invoices WHERE refused IS NOT NULL AND state <> 'final')
""")
_LIVES = text("""
    SELECT e.gateway, min(e.started_at), count(h.request_id)
    FROM gateway_epochs e LEFT JOIN holds h ON h.epoch_id = e.id AND h.state = 'open'
    WHERE e.closed_at IS NULL
    GROUP BY e.gateway ORDER BY e.gateway
""")


@dataclass(frozen=True, slots=True)
class OpenLife:
    """A gateway whose journal has not been replayed to its end: one that runs, or one that died."""

    gateway: str
    since: datetime
    open_holds: int


@dataclass(frozen=True, slots=True)
class Stray:
    """What was found.

    Attributes:
        rejected: requests that settlement has set aside.
        unsettled: requests that have been in the queue for more than `PATIENCE_SECONDS`.
        unreleased: holds whose gateway's journal was replayed so long ago without telling of them.
        unexplained: findings of reconciliation that nobody has explained.
        refused_invoices: invoices that were set aside before they became final.
        lives: of gateways, the living ones too.
    """

    rejected: int
    unsettled: int
    unreleased: int
    unexplained: int
    refused_invoices: int
    lives: tuple[OpenLife, ...]


def find(session: Session, now: datetime) -> Stray:
    """Look for what should have moved before `now`."""
    late = now - timedelta(seconds=PATIENCE_SECONDS)
    rejected, unsettled, unreleased, unexplained, refused = session.execute(
        _COUNTS, {"late": late}
    ).one()
    return Stray(
        rejected=rejected,
        unsettled=unsettled,
        unreleased=unreleased,
        unexplained=unexplained,
        refused_invoices=refused,
        lives=tuple(OpenLife(*row) for row in session.execute(_LIVES)),
    )
