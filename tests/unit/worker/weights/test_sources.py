"""Hub, bucket and folder: keys, refusals, and what may not be trusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fetching import FILES, bucket, content_of, fetch, hub
from support.weights_server import WeightsServer

from worker.errors import WeightsError
from worker.weights.digest import digest_of_folder
from worker.weights.fetch import Fetch
from worker.weights.folder import Folder
from worker.weights.source import Source, SourceFile


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


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\\b", "a\nb", "a\0b"])
def test_a_source_cannot_write_elsewhere(path: str) -> None:
    with pytest.raises(WeightsError, match="no path"):
        SourceFile(path, 1, "v")


class Endless:
    """Lists a file of ten bytes and never stops sending it."""

    def __init__(self) -> None:
        self.sent_bytes = 0

    def files(self) -> list[SourceFile]:
        return [SourceFile("model.safetensors", 10, "1")]

    @contextmanager
    def read(self, file: SourceFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        yield offset, self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        while True:
            self.sent_bytes += 7
            yield b"endless"


def test_a_source_cannot_fill_the_disk_with_more_than_it_lists(tmp_path: Path) -> None:
    source = Endless()
    with pytest.raises(WeightsError, match="more than 10 bytes"):
        Fetch(source, tmp_path / "w", first_pause_seconds=0.001).run()
    assert source.sent_bytes < 200
    assert sum(it.stat().st_size for it in tmp_path.rglob("*") if it.is_file()) <= 10
