"""`flashplane rejected`: listed, tried again, written off; and bad input."""

import uuid

import pytest
from sqlalchemy import update
from support.command import Command
from support.shop import Shop

from controlplane.usage.models import StagedUsage
from controlplane.usage.records import TokenUsage


@pytest.fixture
def poisoned(shop: Shop) -> str:
    customer = shop.customer(10**12)
    request_id = shop.hold(customer)
    shop.stage(shop.trace(customer, request_id, TokenUsage(10, 20, 5, 2)))
    with shop.sessions.begin() as session:
        session.execute(update(StagedUsage).values(tenant_id=uuid.uuid4()))
    shop.settle()
    return str(request_id)


def test_it_is_listed_with_its_reason_until_it_is_written_off(
    command: Command, shop: Shop, poisoned: str
) -> None:
    (row,) = command.ask("rejected", "list")
    assert (row["request_id"], row["rejected"]) == (poisoned, "the tenant does not exist")
    assert "does not exist" in command.run("rejected", "list").output
    done = command.run("rejected", "write-off", poisoned, "--reason", "a test's")
    assert done.exit_code == 0, done.output
    assert command.ask("rejected", "list") == []
    assert shop.books().ok
    told = command.ask("audit", "list")
    assert {"usage_written_off", "write_off_rejected_usage"} <= {it["action"] for it in told}


def test_a_retry_puts_it_back_into_the_queue(command: Command, shop: Shop, poisoned: str) -> None:
    assert command.run("rejected", "retry", poisoned).exit_code == 0
    assert (shop.books().staged, shop.books().rejected) == (1, 0)


@pytest.mark.parametrize(
    "words",
    [
        ("retry", "019b76da-a800-7000-8000-00000000ffff"),
        ("retry", "nonsense"),
        ("write-off", "019b76da-a800-7000-8000-00000000ffff", "--reason", "none"),
        ("write-off", "019b76da-a800-7000-8000-00000000ffff", "--reason", ""),
    ],
)
def test_refusals_are_sentences(command: Command, words: tuple[str, ...]) -> None:
    result = command.run("rejected", *words)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
