"""Weights arrive whole, whatever breaks on the way, or not at all."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.polling import until
from support.weights_server import BUCKET, PREFIX, REPO, WeightsServer, weights_server

from worker.errors import WeightsError
from worker.weights.bucket import Bucket
from worker.weights.digest import digest_of_folder
from worker.weights.fetch import Fetch
from worker.weights.folder import Folder
from worker.weights.hub import Hub
from worker.weights.source import Source, SourceFile

COMMAND = [sys.executable, "-c", "from worker.cli import app; app()"]
FILES = {
    "config.json": b'{"model_type": "deepseek_v4"}',
    "empty.txt": b"",
    "model-1.safetensors": random.Random(1).randbytes(3_000_000),
    "model-2.safetensors": random.Random(2).randbytes(2_500_001),
    "sub/a file.json": b"{}",
}


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with weights_server(FILES) as running:
        yield running


@pytest.fixture(params=["hub", "bucket"])
def source(request: pytest.FixtureRequest, server: WeightsServer) -> Source:
    return hub(server) if request.param == "hub" else bucket(server)


def hub(server: WeightsServer, token: str = "") -> Hub:
    return Hub(REPO, endpoint=server.url, token=token)


def bucket(server: WeightsServer) -> Bucket:
    return Bucket(f"s3://{BUCKET}/{PREFIX}", endpoint=server.url)


def fetch(source: Source, directory: Path, digest: str = "") -> bool:
    return Fetch(source, directory, digest=digest, first_pause_seconds=0.01).run()


def content_of(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_all_files_arrive_as_they_are(source: Source, tmp_path: Path) -> None:
    assert fetch(source, tmp_path / "w") is True
    assert content_of(tmp_path / "w") == FILES
    assert {it.name for it in tmp_path.iterdir()} == {"w", "w.lock"}


def test_what_is_there_is_not_fetched_again(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    fetch(source, tmp_path / "w")
    before = server.sent_bytes
    assert fetch(source, tmp_path / "w") is False
    assert server.sent_bytes == before


def test_broken_connections_are_resumed_where_they_broke(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    server.cut_after_bytes, server.cuts_left = 400_000, 9
    fetch(source, tmp_path / "w")
    assert content_of(tmp_path / "w") == FILES
    assert server.asked["model-1.safetensors"] + server.asked["model-2.safetensors"] == 11
    assert server.sent_bytes < sum(map(len, FILES.values())) + 10_000


def test_a_server_without_ranges_is_read_from_the_beginning(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    server.knows_ranges = False
    server.cut_after_bytes, server.cuts_left = 2_000_000, 2
    fetch(source, tmp_path / "w")
    assert content_of(tmp_path / "w") == FILES


def test_a_busy_server_is_asked_again(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    server.busy_left = 4
    fetch(source, tmp_path / "w")
    assert content_of(tmp_path / "w") == FILES


def test_a_server_that_never_gets_on_is_given_up(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    server.cut_after_bytes, server.cuts_left = 0, 10**6
    with pytest.raises(WeightsError, match="given up after 8 tries"):
        fetch(source, tmp_path / "w")
    assert not (tmp_path / "w").exists()


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


def test_the_right_digest_is_accepted_and_another_refused(source: Source, tmp_path: Path) -> None:
    fetch(source, tmp_path / "first")
    digest = digest_of_folder(tmp_path / "first")
    fetch(source, tmp_path / "second", digest)
    with pytest.raises(WeightsError, match=f"{digest}, not sha256:0000"):
        fetch(source, tmp_path / "third", f"sha256:{'0' * 64}")
    assert {it.name for it in tmp_path.glob("third*")} == {"third.lock"}


def test_the_digest_is_what_sha256sum_tells(server: WeightsServer, tmp_path: Path) -> None:
    fetch(hub(server), tmp_path / "w")
    script = "find * -type f -print0 | LC_ALL=C xargs -0 sha256sum | LC_ALL=C sort | sha256sum"
    told = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path / "w", capture_output=True, text=True, check=True
    )
    assert digest_of_folder(tmp_path / "w") == f"sha256:{told.stdout.split()[0]}"


def test_a_file_with_other_bytes_than_the_hub_names_is_refused(
    server: WeightsServer, tmp_path: Path
) -> None:
    source = hub(server)
    listed = source.files()
    source.files = lambda: listed  # type: ignore[method-assign]
    server.files["model-1.safetensors"] = bytes(3_000_000)
    with pytest.raises(WeightsError, match=r"model-1\.safetensors came with other bytes"):
        fetch(source, tmp_path / "w")


def test_an_object_that_changes_meanwhile_is_refused(server: WeightsServer, tmp_path: Path) -> None:
    source = bucket(server)
    listed = source.files()
    source.files = lambda: listed  # type: ignore[method-assign]
    server.files["config.json"] = b"{}"
    with pytest.raises(WeightsError, match="changed while it was fetched"):
        fetch(source, tmp_path / "w")


def test_what_came_of_another_version_is_thrown_away(server: WeightsServer, tmp_path: Path) -> None:
    server.cut_after_bytes, server.cuts_left = 0, 10**6
    with pytest.raises(WeightsError):
        fetch(bucket(server), tmp_path / "w")
    server.cuts_left = 0
    server.files["model-1.safetensors"] = b"new"
    fetch(bucket(server), tmp_path / "w")
    assert content_of(tmp_path / "w")["model-1.safetensors"] == b"new"
    assert {it.name for it in tmp_path.iterdir()} == {"w", "w.lock"}


def test_a_key_is_sent_and_its_lack_is_told(server: WeightsServer, tmp_path: Path) -> None:
    server.token = "hf_key"
    with pytest.raises(WeightsError, match="401: these weights need a key"):
        fetch(hub(server), tmp_path / "w")
    fetch(hub(server, token="hf_key"), tmp_path / "w")
    assert content_of(tmp_path / "w") == FILES


def test_requests_to_a_bucket_are_signed_when_there_is_a_key(
    server: WeightsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    fetch(bucket(server), tmp_path / "w")
    signed = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"
    assert all(it.startswith(signed) for it in server.authorizations)
    assert all("/us-east-1/s3/aws4_request" in it for it in server.authorizations)


def test_a_folder_is_copied(tmp_path: Path) -> None:
    for name, content in FILES.items():
        file = tmp_path / "claim" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    fetch(Folder(tmp_path / "claim"), tmp_path / "w", digest_of_folder(tmp_path / "claim"))
    assert content_of(tmp_path / "w") == FILES


def test_weights_that_do_not_fit_are_not_begun(
    source: Source, server: WeightsServer, tmp_path: Path
) -> None:
    listed = [SourceFile("huge.safetensors", 10**18, "v")]
    source.files = lambda: listed  # type: ignore[method-assign]
    with pytest.raises(WeightsError, match="still to come"):
        fetch(source, tmp_path / "w")
    assert not server.asked


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\\b"])
def test_a_source_cannot_write_elsewhere(path: str) -> None:
    with pytest.raises(WeightsError, match="no path"):
        SourceFile(path, 1, "v")


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
