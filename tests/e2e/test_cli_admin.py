"""The admin commands against the running product: a customer's whole life."""

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from beancount import loader
from support.polling import until
from support.product import Product


def ask(product: Product, *arguments: str) -> Any:
    result = product.command(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def tenant(shared_product: Product) -> str:
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    assert ask(shared_product, "tenants", "create", name)["status"] == "active"
    return name


def complete(up: dict[str, Any], key: str) -> httpx.Response:
    body = {
        "model": "deepseek-v4-flash",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 2,
    }
    url = f"{up['base_url']}/chat/completions"
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(url, json=body, headers=headers, timeout=60)


def test_a_customer_pays_calls_and_sees_the_bill(
    shared_product: Product, up: dict[str, Any], tenant: str
) -> None:
    key = ask(shared_product, "keys", "create", tenant, "--name", "laptop")
    assert complete(up, key["key"]).status_code == 402
    assert ask(shared_product, "top-up", tenant, "0.50")["balance"]["balance_usd"] == "0.50"
    assert complete(up, key["key"]).status_code == 200
    usage = until(
        lambda: ask(shared_product, "usage", "--tenant", tenant), seconds=20, what="a settled bill"
    )
    assert [row["output_tokens"] <= 2 for row in usage] == [True]
    lines = ask(shared_product, "ledger", "--tenant", tenant)
    left = int(ask(shared_product, "balance", tenant)["balance_p"])
    assert left == sum(int(line["amount_p"]) for line in lines)
    assert left == 500_000_000_000 - int(usage[0]["charge_p"])
    assert "laptop" in shared_product.command("keys", "list", tenant).stdout


def test_a_revoked_key_and_a_suspended_tenant_open_nothing(
    shared_product: Product, up: dict[str, Any], tenant: str
) -> None:
    first, second = (ask(shared_product, "keys", "create", tenant) for _ in range(2))
    ask(shared_product, "top-up", tenant, "1")
    ask(shared_product, "keys", "revoke", first["id"])
    assert complete(up, first["key"]).status_code == 401
    ask(shared_product, "tenants", "suspend", tenant)
    until(lambda: complete(up, second["key"]).status_code == 401, seconds=5, what="suspension")
    ask(shared_product, "tenants", "activate", tenant)
    until(lambda: complete(up, second["key"]).status_code == 200, seconds=5, what="activation")


def test_a_published_price_is_listed(shared_product: Product) -> None:
    model = f"model-{uuid.uuid4().hex[:8]}"
    prices = ("--hit", "0.01", "--miss", "0.1", "--output", "0.2")
    published = ask(shared_product, "prices", "publish", model, *prices)
    assert published["output_usd_per_million"] == "0.20"
    assert model in [row["model"] for row in ask(shared_product, "prices", "list")]


def test_refusals_are_sentences(shared_product: Product, tenant: str) -> None:
    for arguments, words in (
        (("tenants", "create", tenant), "already"),
        (("top-up", tenant, "-5"), ""),
        (("balance", "nobody-here"), "There is no tenant 'nobody-here'"),
        (("keys", "revoke", str(uuid.uuid4())), "There is no key"),
    ):
        result = shared_product.command(*arguments)
        assert result.returncode != 0, arguments
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_the_books_are_exact(shared_product: Product) -> None:
    assert ask(shared_product, "books")["violations"] == []


def test_credit_is_given_returned_and_exported(
    shared_product: Product, tenant: str, tmp_path: Path
) -> None:
    told = ("--reason", "on the house")
    granted = ask(shared_product, "credit", "grant", tenant, "5", *told)
    assert granted["balance"]["granted_usd"] == "5.00"
    ask(shared_product, "credit", "note", tenant, "--amount", "2", *told)
    adjusted = ask(shared_product, "credit", "adjust", tenant, "--amount=-0.25", *told)
    assert adjusted["balance"]["balance_usd"] == "6.75"
    terms = ask(shared_product, "credit", "terms", tenant, "--limit", "10")
    assert (terms["terms"], terms["available_usd"]) == ("postpaid", "16.75")
    nothing = shared_product.command("credit", "refund", tenant, str(uuid.uuid4()), *told)
    assert (nothing.returncode, "has no transaction" in nothing.stderr) == (1, True)
    file = tmp_path / "books.beancount"
    export = shared_product.command("ledger", "export", "--tenant", tenant, "--output", str(file))
    assert export.returncode == 0, export.stderr
    _, errors, _ = loader.load_file(str(file))
    assert errors == []
    printed = shared_product.command("ledger", "export", "--tenant", tenant, "--format", "csv")
    assert printed.stdout.count("on the house") == 6
