"""The price book: which version holds when, and that none ever changes."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import exc, text
from sqlalchemy.orm import Session, sessionmaker

from controlplane.errors import Conflict, ModelNotFound, UnprocessableRequest
from controlplane.pricing import book
from controlplane.pricing.drafts import Draft, Rates
from controlplane.pricing.snapshot import PriceBook, Version

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def publish(session: Session, *, output_rate_p: int = 3, effective_from: datetime = NOON) -> None:
    book.publish(
        session,
        model="m",
        hit_rate_p=1,
        miss_rate_p=2,
        output_rate_p=output_rate_p,
        effective_from=effective_from,
    )


def version(number: int, model: str, path: str = "serverless") -> Version:
    """A version of all tenants from noon on, whose rates are its number."""
    draft = Draft(model=model, path=path, rates={"standard": Rates(number, number, number)})
    version_id = uuid.UUID(int=number)
    return Version(version_id, number, draft.key, NOON, None, draft.prices(version_id))


def test_a_price_holds_from_its_moment_until_the_next(sessions: sessionmaker[Session]) -> None:
    start = datetime.now(UTC) + HOUR
    with sessions.begin() as session:
        publish(session, output_rate_p=30, effective_from=start + HOUR)
        publish(session, output_rate_p=10, effective_from=start)
        found = book.current(session)
    assert found.price("m", "serverless", start).output_rate_p == 10
    assert found.price("m", "serverless", start + HOUR / 2).output_rate_p == 10
    assert found.price("m", "serverless", start + HOUR).output_rate_p == 30


def test_no_price_before_the_first_version(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        found = book.current(session)
    with pytest.raises(ModelNotFound):
        found.price("m", "serverless", NOON - HOUR)
    assert found.models("serverless", NOON - HOUR) == []
    assert found.models("serverless", NOON) == ["m"]


def test_an_unknown_model_is_named(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        found = book.current(session)
    with pytest.raises(ModelNotFound, match="nope"):
        found.price("nope", "serverless", NOON)


def test_two_versions_cannot_start_at_the_same_moment(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        with pytest.raises(Conflict):
            publish(session)


def test_a_hit_dearer_than_a_miss_is_refused(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session, pytest.raises(UnprocessableRequest):
        book.publish(session, model="m", hit_rate_p=3, miss_rate_p=2, output_rate_p=1)


def test_a_published_price_never_changes(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
    with sessions() as session, pytest.raises(exc.IntegrityError, match="append-only"):
        session.execute(text("UPDATE price_versions SET model = model"))


def test_one_price_holds_for_every_dedicated_model_without_its_own() -> None:
    anybody = version(1, "*", path="dedicated")
    own = version(2, "m@own", path="dedicated")
    found = PriceBook([anybody, own])
    assert found.version("m@prod", "dedicated", NOON) == anybody
    assert found.version("m@own", "dedicated", NOON) == own
    with pytest.raises(ModelNotFound):
        found.price("m@prod", "serverless", NOON)


def test_a_new_database_prices_dedicated_tokens_at_nothing(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        found = book.current(session).price("m@prod", "dedicated", NOON)
    assert (found.hit_rate_p, found.miss_rate_p, found.output_rate_p) == (0, 0, 0)


def test_rates_are_published_with_their_version_or_never(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
    late = text(
        "INSERT INTO price_rates SELECT id, 'late', 0, 0, 0, 0 FROM price_versions"
        " WHERE model = 'm'"
    )
    with sessions() as session, pytest.raises(exc.IntegrityError, match="never change"):
        session.execute(late)
    for table in ("price_rates", "price_calendars"):
        with sessions() as session, pytest.raises(exc.IntegrityError, match="append-only"):
            session.execute(text(f"DELETE FROM {table}"))


def test_a_version_for_all_has_rates(sessions: sessionmaker[Session]) -> None:
    bare = text(
        "INSERT INTO price_versions (id, model, path, effective_from)"
        " VALUES (gen_random_uuid(), 'm', 'serverless', now())"
    )
    with pytest.raises(exc.IntegrityError, match="has no rates"), sessions.begin() as session:
        session.execute(bare)


def test_nothing_begins_in_a_past_that_was_charged(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        publish(session, effective_from=datetime.now(UTC) - book.CLOCK_SKEW / 2)
        with pytest.raises(UnprocessableRequest, match="past"):
            publish(session, effective_from=NOON + HOUR)


def test_a_refreshed_book_reads_only_what_is_new(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        publish(session)
        first = book.current(session)
    with sessions.begin() as session:
        assert book.refreshed(session, first) is first
        publish(session, output_rate_p=9, effective_from=datetime.now(UTC))
        second = book.refreshed(session, first)
    now = datetime.now(UTC)
    assert second.price("m", "serverless", now).output_rate_p == 9
    assert first.price("m", "serverless", now).output_rate_p == 3


def test_publishers_take_turns_so_that_no_position_is_missed(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as slow, sessions() as quick:
        publish(slow, effective_from=NOON)
        quick.execute(text("SET lock_timeout = 50"))
        with pytest.raises(exc.OperationalError, match="lock timeout"):
            quick.execute(
                text(
                    "INSERT INTO price_versions (id, model, path, effective_from)"
                    " VALUES (gen_random_uuid(), 'n', 'serverless', now())"
                )
            )
