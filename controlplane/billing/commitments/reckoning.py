"""What falls due of a commitment. Pure; called by `dues`.

A commitment of spend is reckoned month by month: what a month lacks is due. Reserved replicas are
reckoned day by day over the whole term: of what is promised so far, all that was neither used nor
due before. Usage that is charged late therefore lowers a later day's due, and no schedule of
ticks and reckonings makes the tenant pay less than promised, or more than that and what it used.
"""

from datetime import UTC, datetime, timedelta

from controlplane.pricing.rating import MS_PER_HOUR

# Charges of a period's last minutes come a little later.
GRACE = timedelta(hours=1)


def month_after(moment: datetime) -> datetime:
    """Return the first moment of the next calendar month in UTC."""
    at = moment.astimezone(UTC)
    year, month = divmod(at.year * 12 + at.month, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def day_after(moment: datetime) -> datetime:
    """Return the first moment of the next day in UTC."""
    at = moment.astimezone(UTC)
    return datetime(at.year, at.month, at.day, tzinfo=UTC) + timedelta(days=1)


def shortfall_p(promised_p: int, used_p: int) -> int:
    """Return what a month lacks."""
    return max(0, promised_p - used_p)


def reserved_p(rate_p_per_hour: int, replicas: int, elapsed: timedelta) -> int:
    """Return what reserved replicas cost so far: floor(N x R x t / 3.6M), in p$."""
    elapsed_ms = elapsed // timedelta(milliseconds=1)
    return rate_p_per_hour * replicas * elapsed_ms // MS_PER_HOUR


def unused_p(promised_p: int, *, used_p: int, due_p: int) -> int:
    """Return what falls due of a reservation now; all three are sums since its beginning."""
    return max(0, promised_p - used_p - due_p)
