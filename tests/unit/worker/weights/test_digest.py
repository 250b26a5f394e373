"""A folder's digest: what is pinned is what arrives."""

import subprocess
from pathlib import Path

import pytest
from support.fetching import fetch, hub
from support.weights_server import WeightsServer

from worker.errors import WeightsError
from worker.weights.digest import digest_of_folder
from worker.weights.source import Source


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
