"""The stored model that comes along: found, told apart, and missed in a sentence."""

from pathlib import Path

import pytest

from worker.demo.packaged import content, digest
from worker.errors import ConfigError


def test_a_missing_stored_model_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stored demo model at .*nowhere.*--stored"):
        content(tmp_path / "nowhere")


def test_another_stored_model_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "m"
    digests = []
    for stored in (b"one", b"two"):
        file.write_bytes(stored)
        digests.append(digest(content(file)))
    assert len(set(digests)) == 2
