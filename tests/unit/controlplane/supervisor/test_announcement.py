"""What people are told when the product is ready."""

from dataclasses import replace

import pytest

from controlplane.supervisor.announcement import Announcement, summary
from controlplane.supervisor.built_in import BuiltInModel

ANNOUNCEMENT = Announcement(
    model=BuiltInModel.DEMO,
    base_url="http://127.0.0.1:8000",
    api_key="key",
    admin_url="http://127.0.0.1:8001",
    admin_key="admin key",
    worker_url="http://127.0.0.1:8002",
    database_url="",
    redis_url="",
)


@pytest.mark.parametrize(
    ("model", "noise"), [(BuiltInModel.DEMO, False), (BuiltInModel.TINY, True)]
)
def test_only_random_weights_are_said_to_write_noise(model: BuiltInModel, noise: bool) -> None:
    told = summary(replace(ANNOUNCEMENT, model=model), "deepseek-v4-flash")
    assert f"The {model} model" in told
    assert ("noise" in told) == noise
