"""`flashplane usage --by` adds up exactly; `flashplane tenants delete` asks first."""

import pytest
from support.command import Command
from support.shop import Shop, cost_p

from controlplane.money import p_to_usd
from controlplane.usage import rollups
from controlplane.usage.records import TokenUsage

USAGE = TokenUsage(10, 20, 5, 2)
TIMES = 3


@pytest.fixture
def used(command: Command, shop: Shop) -> str:
    """The name of a tenant that has used something."""
    customer = shop.customer(10**12)
    for _ in range(TIMES):
        shop.stage(shop.trace(customer, shop.hold(customer), USAGE))
    shop.settle()
    with shop.sessions.begin() as session:
        rollups.roll_up(session)
    return str(customer.tenant_id)


@pytest.mark.parametrize("by", ["day", "model", "key"])
def test_usage_is_added_up_exactly(command: Command, used: str, by: str) -> None:
    rows = command.ask("usage", "--tenant", used, "--by", by)
    assert len(rows) == (7 if by == "day" else 1)
    assert sum(int(it["cost_p"]) for it in rows) == TIMES * cost_p(USAGE)
    assert sum(it["requests"] for it in rows) == TIMES
    (row,) = (it for it in rows if it["requests"])
    assert row["cost_usd"] == p_to_usd(TIMES * cost_p(USAGE))
    assert row["cost_usd"] in command.run("usage", "--tenant", used, "--by", by).output


def test_usage_is_added_up_for_one_tenant_only(command: Command) -> None:
    result = command.run("usage", "--by", "day")
    assert result.exit_code == 1
    assert "--tenant" in result.output


def test_a_tenant_is_deleted_only_when_told_for_sure(command: Command, shop: Shop) -> None:
    tenant = str(shop.customer().tenant_id)
    asked = command.run("tenants", "delete", tenant)
    assert asked.exit_code == 1
    assert "for ever?" in asked.output
    deleted = command.ask("tenants", "delete", tenant, "--yes")
    assert deleted["status"] == "deleted"


def test_a_balance_is_given_up_only_when_told(command: Command) -> None:
    refused = command.run("tenants", "delete", command.tenant, "--yes")
    assert refused.exit_code == 1
    assert "waive_balance" in refused.output
    deleted = command.ask("tenants", "delete", command.tenant, "--yes", "--waive-balance")
    assert deleted["status"] == "deleted"
