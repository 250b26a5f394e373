"""Arrays as literals: PostgreSQL reads back what was written."""

from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, DateTime, String, Uuid, bindparam, exc, select

from controlplane.accounts.models import BalanceType
from controlplane.arrays import ArrayOf, literal
from controlplane.db import open_engine

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ARRAYS = st.one_of(
    st.tuples(st.just(Uuid), st.lists(st.uuids() | st.none())),
    st.tuples(st.just(BigInteger), st.lists(st.integers(-(2**63), 2**63 - 1) | st.none())),
    st.tuples(st.just(BalanceType), st.lists(st.integers(-(10**38) + 1, 10**38 - 1))),
    st.tuples(
        st.just(String),
        st.lists(st.sampled_from(["", "NULL", "null", '"', "\\", "{a,b}", " ", "\t\n"]) | TEXTS),
    ),
    st.tuples(
        st.just(DateTime(timezone=True)),
        st.lists(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))),
    ),
)


def test_what_is_written_is_read_back(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:

        @settings(max_examples=200, deadline=None)
        @given(ARRAYS)
        def read_back(typed) -> None:  # type: ignore[no-untyped-def]
            item_type, values = typed
            query = select(bindparam("values", type_=ArrayOf(item_type)))
            assert connection.scalar(query, {"values": values}) == values

        read_back()
    engine.dispose()


def test_no_array_is_no_value(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = select(bindparam("values", type_=ArrayOf(Uuid)))
        assert connection.scalar(query, {"values": None}) is None
    engine.dispose()


def test_text_that_postgresql_cannot_hold_is_refused(database_url: str) -> None:
    engine = open_engine(database_url)
    with engine.connect() as connection, pytest.raises((exc.DataError, psycopg.DataError)):
        connection.scalar(select(bindparam("it", type_=ArrayOf(String))), {"it": ["a\0b"]})
    engine.dispose()


@pytest.mark.parametrize("value", [True, 1.5, b"bytes"])
def test_a_value_of_a_type_unforeseen_is_refused(value: object) -> None:
    with pytest.raises(KeyError):
        literal([value])
