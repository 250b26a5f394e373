"""Amounts in bodies: exact decimal strings go in as they are, anything else is told what to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from controlplane.amounts import SignedUsd, Usd, UsdPerMillion
from controlplane.money import p_to_usd, usd_to_p

_USD: TypeAdapter[str] = TypeAdapter(Usd)
_SIGNED: TypeAdapter[str] = TypeAdapter(SignedUsd)


@given(amount_p=st.integers(0, 2**63 - 1))
def test_every_amount_of_whole_picodollars_is_taken_as_it_is(amount_p: int) -> None:
    assert usd_to_p(_USD.validate_python(p_to_usd(amount_p))) == amount_p
    assert _SIGNED.validate_python(p_to_usd(-amount_p)) == p_to_usd(-amount_p)


@pytest.mark.parametrize(
    "value",
    [
        *(5, 5.5, True, None, [], "", "-1", "+1", "1e3", " 1", "1 ", "1\n", ".5", "5.", "NaN"),
        *("1,000", "1_0", "0x10", "\u0661\u0660"),  # grouped, of another base or script
        *("0.0000000000001", "1234567890123"),  # too many
    ],
)
def test_anything_else_is_told_what_to_be(value: object) -> None:
    with pytest.raises(ValidationError, match=r'decimal string.*"10\.50".*12 digits'):
        _USD.validate_python(value)


def test_more_than_one_entry_holds_is_too_large() -> None:
    with pytest.raises(ValidationError, match="too large"):
        _USD.validate_python("9223372.036854775808")


def test_a_price_finer_than_a_picodollar_per_token_is_refused() -> None:
    with pytest.raises(ValidationError, match="at most 6 decimals"):
        TypeAdapter(UsdPerMillion).validate_python("0.0280001")


def test_the_schema_tells_the_shape() -> None:
    assert _USD.json_schema() == {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,12})?$"}
