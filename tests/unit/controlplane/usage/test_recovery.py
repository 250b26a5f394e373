"""Recovery: what a dead gateway left is billed once and its holds end."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from support.shop import GATEWAY, Customer, Shop, cost_p, final, progress

from controlplane.accounts import epochs
from controlplane.accounts.models import GatewayEpoch
from controlplane.db import uuid7
from controlplane.usage import events, recovery
from controlplane.usage.journal import Journal, JournalDir
from controlplane.usage.models import UsageEvent
from controlplane.usage.records import TokenUsage
from controlplane.usage.recovery import recover, replay

USAGE = TokenUsage(10, 20, 5, 2)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[JournalDir]:
    directory = JournalDir(tmp_path / "journal")
    yield directory
    directory.close()


@pytest.fixture
def customer(shop: Shop) -> Customer:
    return shop.customer(10**12)


def recovered(shop: Shop, directory: JournalDir) -> uuid.UUID:
    return recover(shop.sessions, directory, GATEWAY)


def event(shop: Shop, customer: Customer, request_id: uuid.UUID) -> UsageEvent:
    with shop.sessions.begin() as session:
        return events.get(session, tenant_id=customer.tenant_id, request_id=request_id)


async def run_and_die(shop: Shop, customer: Customer, directory: JournalDir) -> uuid.UUID:
    """A request that was streaming when its gateway died."""
    request_id = shop.hold(customer)
    journal = Journal(directory, shop.epoch_id)
    journal.append(shop.opened(customer, request_id))
    journal.append(progress(request_id, USAGE))
    await journal.close()
    return request_id


async def test_a_dead_stream_is_billed_its_last_progress(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    request_id = await run_and_die(shop, customer, directory)
    recovered(shop, directory)
    shop.settle()
    settled = event(shop, customer, request_id)
    assert settled.finish_reason == "lost"
    assert settled.charge_p == cost_p(USAGE)
    assert shop.balance(customer).held_p == 0
    assert shop.books().violations == []


async def test_a_final_is_billed_as_it_ended(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    request_id = shop.hold(customer)
    journal = Journal(directory, shop.epoch_id)
    journal.append(shop.opened(customer, request_id))
    await journal.final(final(request_id, USAGE, "length"))
    await journal.close()
    recovered(shop, directory)
    shop.settle()
    assert event(shop, customer, request_id).finish_reason == "length"


async def test_replaying_three_times_bills_once(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    await run_and_die(shop, customer, directory)
    folder = directory.folder(shop.epoch_id)
    saved = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(3):
        # A crash between the commit and the removal leaves the folder behind.
        folder.mkdir(exist_ok=True)
        for name, data in saved.items():
            (folder / name).write_bytes(data)
        recovered(shop, directory)
        shop.settle()
    assert shop.balance(customer).balance_p == 10**12 - cost_p(USAGE)
    assert shop.books().violations == []


async def test_a_long_journal_is_staged_in_parts_and_whole(
    shop: Shop, customer: Customer, directory: JournalDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_BATCH", 2)
    journal = Journal(directory, shop.epoch_id)
    for _ in range(5):
        request_id = shop.hold(customer)
        journal.append(shop.opened(customer, request_id))
        await journal.final(final(request_id, USAGE))
    await journal.close()
    recovered(shop, directory)
    shop.settle()
    assert shop.balance(customer).balance_p == 10**12 - 5 * cost_p(USAGE)
    assert shop.balance(customer).held_p == 0
    assert directory.epochs() == []


def test_a_hold_without_a_journal_is_waived(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    shop.hold(customer)
    recovered(shop, directory)
    assert shop.release_dead() == 1
    assert shop.balance(customer).held_p == 0
    assert shop.balance(customer).balance_p == 10**12


def test_a_live_epochs_hold_is_never_released(shop: Shop, customer: Customer) -> None:
    shop.hold(customer)
    assert shop.release_dead() == 0


async def test_a_staged_hold_of_a_dead_epoch_waits_for_its_bill(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    await run_and_die(shop, customer, directory)
    recovered(shop, directory)
    assert shop.release_dead() == 0


def test_recovery_leaves_one_open_epoch_and_a_clean_folder(
    shop: Shop, directory: JournalDir
) -> None:
    directory.folder(shop.epoch_id).mkdir()
    first, second = recovered(shop, directory), recovered(shop, directory)
    with shop.sessions.begin() as session:
        assert epochs.open_of(session, GATEWAY) == [second]
        closed = session.scalars(select(GatewayEpoch.id).where(GatewayEpoch.closed_at.is_not(None)))
        assert set(closed) == {shop.epoch_id, first}
    assert directory.epochs() == []


def test_another_gateways_epoch_is_left_alone(shop: Shop, directory: JournalDir) -> None:
    with shop.sessions.begin() as session:
        other = epochs.begin(session, "another-gateway")
    recovered(shop, directory)
    with shop.sessions.begin() as session:
        assert epochs.open_of(session, "another-gateway") == [other]


async def test_a_renamed_gateway_still_owns_its_folder(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    await run_and_die(shop, customer, directory)
    recover(shop.sessions, directory, "a new name")
    shop.settle()
    assert shop.balance(customer).balance_p == 10**12 - cost_p(USAGE)
    assert shop.balance(customer).held_p == 0


async def test_another_databases_journal_is_set_aside_unharmed(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    foreign = uuid7()
    journal = Journal(directory, foreign)
    journal.append(shop.opened(customer, uuid7()))
    await journal.close()
    recovered(shop, directory)
    (segment,) = (directory.path / f"foreign-{foreign}").iterdir()
    assert segment.stat().st_size > 0
    recovered(shop, directory)
    assert shop.settle() == 0


async def test_what_a_gateway_left_for_good_is_billed_and_its_holds_end(
    shop: Shop, customer: Customer, directory: JournalDir
) -> None:
    request_id = await run_and_die(shop, customer, directory)
    replay(shop.sessions, directory, GATEWAY)
    shop.settle()
    assert event(shop, customer, request_id).output_tokens == USAGE.output_tokens
    with shop.sessions.begin() as session:
        assert epochs.open_of(session, GATEWAY) == []
