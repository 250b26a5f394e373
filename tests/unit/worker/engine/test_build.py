from dataclasses import replace

import pytest

from worker.config import EngineConfig
from worker.engine.build import check_limits
from worker.errors import ConfigError
from worker.model.tiny import TINY

FITTING = EngineConfig(max_model_len=1024, pages=4, max_sequences=2, max_batch_tokens=2)


def test_accepts_the_least_that_works() -> None:
    check_limits(TINY, FITTING)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"max_model_len": 2**21}, "--max-model-len"),
        ({"pages": 3}, "--pages"),
        ({"max_batch_tokens": 1}, "--max-batch-tokens"),
    ],
)
def test_names_the_setting_that_does_not_fit(change: dict[str, int], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        check_limits(TINY, replace(FITTING, **change))  # type: ignore[arg-type]
