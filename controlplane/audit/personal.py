"""Leaves out of a change what its caller worded itself. Called by `api.auditing`. Pure.

The audit log stays for ever, and a person must be erasable: whom a change is about, it tells by id.
So a text is kept only under a name whose texts are ids, amounts, moments, the name of something the
platform sells, or chosen from a list; and the staff's reasons, which the ledger keeps as well. All
other texts, such as names, addresses of any kind and descriptions, are left out, also those under
names that nobody has thought of here yet.
"""

from collections.abc import Mapping, Sequence
from typing import Final

LEFT_OUT: Final = "[left out]"

KEPT: Final = frozenset(
    {
        # Ids of ours. Not `tax_id`.
        *("api_key_id", "calendar_id", "invoice_id", "project_id", "tenant_id", "transaction_id"),
        # Amounts.
        *("amount_usd", "credit_limit_usd", "limit_usd", "request_usd"),
        *("hit_usd_per_million", "miss_usd_per_million", "output_usd_per_million"),
        *("usd_per_gib_hour", "usd_per_hour", "usd_per_month"),
        # Moments.
        *("days", "effective_from", "ends_at", "expires_at", "from", "holidays"),
        *("holidays_known_until", "since", "starts_at", "time_zone", "to", "until"),
        # What the platform sells.
        *("alias_of", "band", "calendar", "configuration", "configurations", "default_band"),
        *("model", "storage_class"),
        # Chosen from a list.
        *("currency", "kind", "kinds", "path", "period", "role", "scopes", "status", "terms"),
        *("dry_run", "waive_balance"),
        # The staff's words on money.
        *("explanation", "reason"),
    }
)


def impersonal(told: Mapping[str, object]) -> dict[str, object]:
    """Return `told` without texts that may tell of a person; numbers, flags and form are kept."""
    return {name: _kept(value, texts=name in KEPT) for name, value in told.items()}


def _kept(value: object, *, texts: bool) -> object:
    if isinstance(value, Mapping):
        return impersonal(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_kept(item, texts=texts) for item in value]
    if isinstance(value, str | bytes):
        return value if texts else LEFT_OUT
    return value
