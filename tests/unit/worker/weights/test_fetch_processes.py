"""Fetching by several processes, one after the other and at once."""

import subprocess
import sys
import threading
from pathlib import Path

from support.fetching import FILES, content_of, fetch, hub
from support.polling import until
from support.weights_server import REPO, WeightsServer

from worker.weights.digest import digest_of_folder

COMMAND = [sys.executable, "-c", "from worker.cli import app; app()"]


def test_an_ended_fetch_goes_on_in_the_next_process(server: WeightsServer, tmp_path: Path) -> None:
    server.cut_after_bytes, server.cuts_left = 1_000_000, 10**6
    arguments = ["fetch", str(tmp_path / "w"), "--hub", REPO, "--endpoint", server.url]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL)
    until(lambda: server.asked["model-1.safetensors"] >= 2, seconds=20, what="some bytes")
    process.kill()
    process.wait()
    server.cuts_left = 0
    before = server.sent_bytes
    fetch(hub(server), tmp_path / "w")
    assert content_of(tmp_path / "w") == FILES
    assert server.sent_bytes - before < sum(map(len, FILES.values())) - 900_000


def test_two_fetch_once(server: WeightsServer, tmp_path: Path) -> None:
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(hub(server), tmp_path / "w")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [False, True]
    assert max(server.asked.values()) == 1


def test_the_command_says_what_it_did(server: WeightsServer, tmp_path: Path) -> None:
    target = str(tmp_path / "w")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)

    fetched = run("fetch", target, "--hub", REPO, "--endpoint", server.url)
    assert (fetched.returncode, fetched.stdout) == (0, f"{target}: fetched\n")
    assert run("digest", target).stdout == f"{digest_of_folder(tmp_path / 'w')}\n"
    refused = run("fetch", target + "2")
    assert (refused.returncode, refused.stderr) == (
        1,
        "flashplane-worker: give exactly one of --hub, --s3 and --from\n",
    )
