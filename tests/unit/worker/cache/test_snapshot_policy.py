import pytest

from worker.cache.policy import snapshot_interval_pages
from worker.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "pages"), [("full", 1), ("window", 0), ("every:1", 1), ("every:64", 64)]
)
def test_policies_by_name(name: str, pages: int) -> None:
    assert snapshot_interval_pages(name) == pages


@pytest.mark.parametrize("name", ["", "none", "every", "every:0", "every:-1", "every:1.5", "FULL"])
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="full, every:P"):
        snapshot_interval_pages(name)
