"""Cache sizes are sums over layers; published figures and our own engine's allocator agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.planner.geometry import TINY, V4_FLASH, V4_PRO, from_config
from controlplane.planner.memory import cache_size
from controlplane.planner.refusal import Refused
from controlplane.planner.weights import GIB, total_bytes

MILLION = 2**20


def test_a_token_takes_3850_bytes_in_fp8_and_6880_in_bfloat16() -> None:
    assert cache_size(V4_FLASH, "fp8").per_token == pytest.approx(3850, abs=1)
    assert cache_size(V4_FLASH, "auto").per_token == 6880


def test_v4_pro_takes_the_9_62_gib_a_million_tokens_that_vllm_published() -> None:
    assert cache_size(V4_PRO, "auto").per_token * MILLION / GIB == pytest.approx(9.62, abs=0.005)


def test_a_million_tokens_take_4_gb_in_fp8_and_7_2_gb_in_bfloat16() -> None:
    assert cache_size(V4_FLASH, "fp8").sequence_bytes(MILLION) / 1e9 == pytest.approx(4.05, 0.01)
    assert cache_size(V4_FLASH, "auto").sequence_bytes(MILLION) / 1e9 == pytest.approx(7.23, 0.01)


def test_compressor_state_of_a_sequence_is_12_2_mb() -> None:
    windows = 43 * 128 * 1024
    assert cache_size(V4_FLASH, "auto").per_sequence - windows == 12_206_080


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    worker("model", "tiny", str(directory))
    return directory


def worker(*arguments: str) -> str:
    program = "from worker.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_our_engines_allocator_takes_what_is_derived(tiny: Path) -> None:
    """The engine reports what its tensors really take; it shares no code with the planner."""
    report = json.loads(worker("model", "inspect", str(tiny), "--json"))
    derived = cache_size(TINY, "auto")
    assert report["kv_bytes_per_token"] == derived.per_token
    assert report["kv_bytes_per_sequence"] == derived.per_sequence
    assert report["kv_bytes_per_snapshot"] == derived.per_snapshot
    assert report["stored"]["per_rank_bytes"] == total_bytes(TINY)


def test_a_config_json_gives_the_geometry_it_describes(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    assert from_config(config, name="tiny") == TINY


@pytest.mark.parametrize(
    ("config", "word"),
    [({"model_type": "deepseek_v41"}, "deepseek_v41"), ({"model_type": "deepseek_v4"}, "lacks")],
)
def test_another_architecture_or_half_a_config_is_refused(config: dict, word: str) -> None:
    with pytest.raises(Refused, match=word):
        from_config(config)
