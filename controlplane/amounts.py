"""Amounts of money as bodies carry them: decimal strings, never numbers that a reader may round.

Used by the REST API's schemas and by what payment providers send.
"""

from collections.abc import Callable
from re import compile
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from controlplane.money import usd_per_million_to_rate_p, usd_to_p

_UNSIGNED = r"[0-9]{1,12}(\.[0-9]{1,12})?"
_SIGNED = f"-?{_UNSIGNED}"


def _decimal(
    pattern: str, meaning: str, to_picodollars: Callable[[str], int]
) -> Callable[[object], str]:
    """Return the check of a string that is exactly some whole picodollars."""
    whole = compile(pattern)

    def checked(value: object) -> str:
        if not isinstance(value, str) or whole.fullmatch(value) is None:
            raise ValueError(
                f"must be a decimal string, {meaning}, of at most 12 digits before the point and"
                " 12 after it"
            )
        to_picodollars(value)
        return value

    return checked


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


Usd = Annotated[
    str,
    BeforeValidator(_decimal(_UNSIGNED, 'an amount in USD such as "10.50"', usd_to_p)),
    _schema(_UNSIGNED),
]
SignedUsd = Annotated[
    str,
    BeforeValidator(_decimal(_SIGNED, 'an amount in USD such as "-10.50"', usd_to_p)),
    _schema(_SIGNED),
]
UsdPerMillion = Annotated[
    str,
    BeforeValidator(
        _decimal(_UNSIGNED, 'USD per million tokens such as "0.028"', usd_per_million_to_rate_p)
    ),
    _schema(_UNSIGNED),
]
