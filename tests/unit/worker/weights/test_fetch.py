"""Weights arrive whole, whatever breaks on the way, or not at all."""

from pathlib import Path

import pytest
from support.fetching import FILES, bucket, content_of, fetch
from support.weights_server import WeightsServer

from worker.errors import WeightsError
from worker.weights.source import Source


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


def test_what_came_of_another_version_is_thrown_away(server: WeightsServer, tmp_path: Path) -> None:
    server.cut_after_bytes, server.cuts_left = 0, 10**6
    with pytest.raises(WeightsError):
        fetch(bucket(server), tmp_path / "w")
    server.cuts_left = 0
    server.files["model-1.safetensors"] = b"new"
    fetch(bucket(server), tmp_path / "w")
    assert content_of(tmp_path / "w")["model-1.safetensors"] == b"new"
    assert {it.name for it in tmp_path.iterdir()} == {"w", "w.lock"}
