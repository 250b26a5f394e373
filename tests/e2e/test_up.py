"""`flashplane up` as a user meets it: started, asked, started twice."""

import json
import socket
import time
from typing import Any

import httpx
from support.product import Product, processes_of

from controlplane.processes.process import identify

SERVICES = {"postgres", "valkey", "worker", "gateway", "api", "jobs", "beat", "operator"}


def test_up_json_tells_everything_and_only_to_its_owner(
    shared_product: Product, up: dict[str, Any]
) -> None:
    assert (shared_product.data_dir / "up.json").stat().st_mode & 0o777 == 0o600
    assert (shared_product.data_dir / "secrets").stat().st_mode & 0o777 == 0o600
    assert shared_product.data_dir.stat().st_mode & 0o777 == 0o700
    assert up["base_url"] == f"http://127.0.0.1:{shared_product.ports[0]}"
    assert up["api_key"].startswith("dsf_")
    assert up["admin_key"].startswith("dsa_")
    assert up["pids"].keys() == SERVICES | {"supervisor"}
    assert all(identify(pid) for pid in up["pids"].values())


def test_a_completion_is_served_with_the_demo_key(up: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{up['base_url']}/chat/completions",
        headers={"authorization": f"Bearer {up['api_key']}"},
        json={
            "model": "deepseek-v4-flash",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 3,
        },
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] <= 3


def test_the_workers_own_journal_agrees_with_the_answer(up: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{up['base_url']}/completions",
        headers={"authorization": f"Bearer {up['api_key']}"},
        json={
            "model": "deepseek-v4-flash",
            "prompt": "One, two,",
            "suffix": "five, six",
            "max_tokens": 3,
        },
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    told = httpx.get(f"{up['worker_url']}/usage/{answer.headers['x-request-id']}").json()
    (attempt,) = told["attempts"]
    assert {name: attempt[name] for name in ("prompt_tokens", "completion_tokens")} == {
        name: usage[name] for name in ("prompt_tokens", "completion_tokens")
    }


def test_status_says_that_all_runs_and_the_books_are_exact(shared_product: Product) -> None:
    deadline = time.monotonic() + 10
    while (result := shared_product.command("status", "--json")).returncode != 0:
        # Another test's request may be between its end and its bill.
        assert time.monotonic() < deadline, result.stdout + result.stderr
    status = json.loads(result.stdout)
    assert {process["name"] for process in status["processes"]} == SERVICES | {"supervisor"}
    assert [replica["model"] for replica in status["replicas"]] == ["deepseek-v4-flash"]
    assert status["books"] == "exact"


def test_status_shows_a_table(shared_product: Product) -> None:
    table = shared_product.command("status").stdout
    assert all(name in table for name in SERVICES)
    assert "replica flash-0: deepseek-v4-flash" in table


def test_a_second_up_in_the_same_folder_is_refused(
    shared_product: Product, up: dict[str, Any]
) -> None:
    result = shared_product.command("up", *shared_product.flags)
    assert result.returncode == 1
    assert f"already running in {shared_product.data_dir}, pid {up['pids']['supervisor']}" in (
        result.stderr
    )
    assert "flashplane down" in result.stderr
    assert shared_product.announced() == up


def test_a_second_up_in_the_background_joins_what_runs(
    shared_product: Product, up: dict[str, Any]
) -> None:
    assert shared_product.up() == up


def test_a_second_up_that_asks_for_something_else_is_refused(
    shared_product: Product, up: dict[str, Any]
) -> None:
    for other in (["--fresh"], ["--port", "1"], ["--model", "demo"]):
        result = shared_product.command("up", "--detach", *shared_product.flags, *other)
        assert result.returncode == 1
        assert "flashplane down" in result.stderr
    assert shared_product.announced() == up


def test_no_secret_is_on_a_command_line_or_in_a_log(
    shared_product: Product, up: dict[str, Any]
) -> None:
    secrets = json.loads((shared_product.data_dir / "secrets").read_text())
    logs = [
        *(shared_product.data_dir / "log").iterdir(),
        shared_product.data_dir / "supervisor.out",
    ]
    assert len(logs) > len(SERVICES)
    told = "".join(log.read_text() for log in logs)
    told += "".join(processes_of(shared_product.folder).values())
    assert up["worker_url"].rpartition(":")[2] in told
    for name in ("key_pepper", "api_key", "admin_key"):
        assert secrets[name] not in told


def test_a_taken_port_is_named_with_its_flag(own_product: Product) -> None:
    with socket.create_server(("127.0.0.1", own_product.ports[1])):
        result = own_product.command("up", *own_product.flags)
    assert result.returncode == 1
    assert f"Port {own_product.ports[1]}" in result.stderr
    assert "--admin-port" in result.stderr
    assert "Traceback" not in result.stderr
    assert processes_of(own_product.folder) == {}


def test_the_background_start_tells_why_it_failed(own_product: Product) -> None:
    with socket.create_server(("127.0.0.1", own_product.ports[0])):
        result = own_product.command("up", "--detach", *own_product.flags)
    assert result.returncode == 1
    assert f"Port {own_product.ports[0]}" in result.stdout
    assert processes_of(own_product.folder) == {}


def test_status_and_down_without_anything_running(own_product: Product) -> None:
    status = own_product.command("status")
    assert status.returncode == 1
    assert "not running" in status.stderr
    down = own_product.command("down")
    assert (down.returncode, down.stdout) == (0, "Nothing was running.\n")


def test_servers_that_are_given_are_used(
    own_product: Product, database_url: str, redis_url: str
) -> None:
    result = own_product.command(
        "up", "--detach", *own_product.flags, DATABASE_URL=database_url, REDIS_URL=redis_url
    )
    assert result.returncode == 0, result.stdout + result.stderr
    up = own_product.announced()
    assert up["pids"].keys() == SERVICES - {"postgres", "valkey"} | {"supervisor"}
    assert (up["database_url"], up["redis_url"]) == (database_url, redis_url)
    own_product.down()
    assert not (own_product.data_dir / "postgres").exists()


def test_a_database_that_does_not_answer_is_a_sentence(own_product: Product) -> None:
    nowhere = f"postgresql://user:secret@127.0.0.1:{own_product.ports[2]}/db"
    result = own_product.command("up", *own_product.flags, DATABASE_URL=nowhere)
    assert result.returncode == 1
    assert "DATABASE_URL does not answer" in result.stderr
    assert "secret" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert processes_of(own_product.folder) == {}
