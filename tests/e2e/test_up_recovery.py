"""`flashplane up` after something went wrong: killed, interrupted, half-finished, robbed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.polling import until
from support.product import Product, kill, processes_of, product

from controlplane.processes.process import identify

# Too deep for a Unix socket.
DEEP = Path("a" * 50) / ("b" * 50)
STOP_ORDER = ["gateway", "api", "beat", "jobs", "operator", "worker", "valkey", "postgres"]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product that ran once; every test here finds it stopped and leaves it stopped."""
    with product(tmp_path_factory.mktemp("used")) as it:
        it.up()
        it.down()
        yield it


@pytest.fixture
def stopped(used: Product) -> Iterator[Product]:
    yield used
    used.down()


def models_status(up: dict[str, Any], api_key: str) -> int:
    headers = {"authorization": f"Bearer {api_key}"}
    return httpx.get(f"{up['base_url']}/models", headers=headers).status_code


def secrets(product: Product) -> dict[str, str]:
    content: dict[str, str] = json.loads((product.data_dir / "secrets").read_text())
    return content


def change_secrets(product: Product, **changes: str) -> None:
    (product.data_dir / "secrets").write_text(json.dumps(secrets(product) | changes))


def run_until(product: Product, words: str, number: signal.Signals) -> tuple[int, list[str]]:
    """Run `up`, send it a signal once it says `words`; return its exit code and its lines."""
    lines = []
    with product.foreground() as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if words in line:
                process.send_signal(number)
    return process.returncode, lines


def test_ctrl_c_stops_everything_in_order(tmp_path: Path) -> None:
    folder = tmp_path / DEEP
    folder.mkdir(parents=True)
    with product(folder) as own:
        code, lines = run_until(own, "stop with Ctrl-C", signal.SIGINT)
        assert code == 0, lines
        assert [line.split()[2] for line in lines if "  Stopped " in line] == STOP_ORDER
        assert processes_of(folder) == {}
        assert not (own.data_dir / "up.json").exists()
        assert not (own.data_dir / "run").is_symlink()


def test_a_first_start_killed_at_any_step_is_finished_by_the_next(own_product: Product) -> None:
    for step in ("PostgreSQL", "Valkey", "Demo tenant", "Checkpoint", "Gateway"):
        code, lines = run_until(own_product, step, signal.SIGKILL)
        assert code == -signal.SIGKILL, "".join(lines)
    up = own_product.up()
    assert models_status(up, up["api_key"]) == 200


def test_a_second_start_keeps_the_keys(stopped: Product) -> None:
    before = secrets(stopped)
    up = stopped.up()
    assert (up["api_key"], up["admin_key"]) == (before["api_key"], before["admin_key"])
    assert secrets(stopped) == before


def test_after_the_supervisor_was_killed_the_next_up_replaces_its_children(
    stopped: Product,
) -> None:
    first = stopped.up()
    orphans = {name: pid for name, pid in first["pids"].items() if name != "supervisor"}
    kill(first["pids"]["supervisor"])
    assert all(identify(pid) for pid in orphans.values())
    result = stopped.command("up", "--detach", *stopped.flags)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Stopping gateway, pid {orphans['gateway']}, left by a supervisor" in result.stdout
    assert not any(identify(pid) for pid in orphans.values())
    assert models_status(stopped.announced(), first["api_key"]) == 200
    kill(stopped.announced()["pids"]["supervisor"])
    stopped.down()
    assert processes_of(stopped.folder) == {}


def test_lost_keys_are_replaced_and_revoked(stopped: Product) -> None:
    lost = secrets(stopped)
    change_secrets(stopped, api_key="", admin_key="")
    result = stopped.command("up", "--detach", *stopped.flags)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "tenant's key was lost: it is revoked" in result.stdout
    assert "admin key was lost: it is revoked" in result.stdout
    up = stopped.announced()
    assert models_status(up, lost["api_key"]) == 401
    assert models_status(up, up["api_key"]) == 200


@pytest.mark.parametrize("how", ["lost", "changed"])
def test_a_pepper_that_does_not_fit_the_database_is_a_sentence(stopped: Product, how: str) -> None:
    before = secrets(stopped)
    if how == "lost":
        (stopped.data_dir / "secrets").unlink()
    else:
        change_secrets(stopped, key_pepper="another")
    result = stopped.command("up", *stopped.flags)
    (stopped.data_dir / "secrets").write_text(json.dumps(before))
    assert result.returncode == 1, result.stdout
    assert "pepper" in result.stderr
    assert "--fresh" in result.stderr
    assert "Traceback" not in result.stderr
    assert processes_of(stopped.folder) == {}


def test_data_of_another_postgresql_is_refused(stopped: Product) -> None:
    version = stopped.data_dir / "postgres" / "PG_VERSION"
    major = version.read_text()
    version.write_text("17\n")
    result = stopped.command("up", *stopped.flags)
    version.write_text(major)
    assert result.returncode == 1
    assert "holds data of PostgreSQL 17, but the installed wheel is PostgreSQL 18" in result.stderr


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        with product(tmp_path) as own:
            result = own.command("up", *own.flags)
            assert result.returncode == 1
            disk_is_full = f"The disk that holds {own.data_dir} is full: free some space"
            assert disk_is_full in result.stderr
            assert "Traceback" not in result.stderr
            assert processes_of(tmp_path) == {}
            assert not (own.data_dir / "postgres").exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_fresh_begins_with_new_keys(stopped: Product) -> None:
    before = secrets(stopped)
    up = stopped.up("--fresh")
    assert models_status(up, before["api_key"]) == 401
    assert models_status(up, up["api_key"]) == 200


def test_a_damaged_secrets_file_is_a_sentence_that_does_not_lose_it(stopped: Product) -> None:
    before = secrets(stopped)
    change_secrets(stopped, key_pepper=5)
    result = stopped.command("up", *stopped.flags)
    (stopped.data_dir / "secrets").write_text(json.dumps(before))
    assert result.returncode == 1, result.stdout
    assert "secrets is damaged: put a copy of it back" in result.stderr
    assert processes_of(stopped.folder) == {}


def test_a_damaged_model_is_written_again(stopped: Product) -> None:
    shard, *_ = sorted((stopped.data_dir / "tiny-model").glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.unlink()
    up = stopped.up()
    assert shard.read_bytes() == whole
    assert models_status(up, up["api_key"]) == 200


def test_files_that_somebody_damages_while_it_runs_are_put_right(stopped: Product) -> None:
    up = stopped.up()
    before = stopped.command("status", "--json")
    (stopped.data_dir / "up.json").unlink()
    (stopped.data_dir / "processes.json").write_text('{"postgres": 1}')
    until((stopped.data_dir / "up.json").exists, seconds=5, what="up.json is back")
    assert stopped.announced() == up
    listed = json.loads(stopped.command("status", "--json").stdout)["processes"]
    assert [it["pid"] for it in listed] == [
        it["pid"] for it in json.loads(before.stdout)["processes"]
    ]


def test_a_frozen_process_is_told_and_does_not_delay_the_stop(stopped: Product) -> None:
    up = stopped.up()
    for name in ("worker", "supervisor"):
        os.kill(up["pids"][name], signal.SIGSTOP)
    result = stopped.command("status")
    assert result.returncode == 1
    assert f"worker is frozen by a signal: `kill -CONT {up['pids']['worker']}`" in result.stdout
    assert f"`kill -CONT {up['pids']['supervisor']}`" in result.stdout
    stopped.down()
    said = (stopped.data_dir / "supervisor.out").read_text()
    assert "did not stop" not in said
    assert processes_of(stopped.folder) == {}
