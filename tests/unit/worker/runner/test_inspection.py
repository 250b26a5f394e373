from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import write_sparse
from support.v4 import FLASH, SMALL, official_pro

from worker.config import EngineConfig
from worker.errors import CheckpointError, ConfigError
from worker.model.checkpoint import OFFICIAL, Form, Variant
from worker.model.loader import load_weights
from worker.model.numerics import numerics
from worker.model.tiny import write_checkpoint
from worker.runner.inspection import Report, as_text, inspect
from worker.runner.kv_tensors import KVTensors


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inspection") / "flash"
    write_sparse(directory, FLASH, shards=46)
    return directory


@pytest.fixture(scope="module")
def report(flash: Path) -> Report:
    return inspect(flash, ep_size=8)


@pytest.fixture(scope="module")
def packed(flash: Path) -> Report:
    return inspect(flash, ep_size=2, kv_format="fp8")


def test_flash_has_the_published_parameters(report: Report) -> None:
    counts = report.parameters
    assert round(counts.main / 1e9, 1) == 284.3
    assert round(counts.mtp / 1e9, 1) == 6.6
    assert round(counts.active / 1e9) == 13


def test_flash_has_the_published_files_and_layers(report: Report) -> None:
    assert (report.files, report.tensors) == (46, 69_187)
    assert report.stored.experts_bytes + report.stored.replicated_bytes == 159_609_485_896
    assert 0 < report.disk_bytes - 159_609_485_896 < 20e6  # headers
    assert report.layers == {"window": 2, "csa": 21, "hca": 20}
    assert report.variant == {
        "naming": "official",
        "dense": "fp8",
        "experts": "fp4",
        "mtp": True,
    }


def test_flash_fits_ranks_as_published(report: Report, packed: Report) -> None:
    assert round(report.stored.per_rank_bytes / 1e9, 1) == 27.8
    assert round(packed.stored.per_rank_bytes / 1e9, 1) == 84.3


def test_flash_takes_the_published_cache(report: Report) -> None:
    assert report.kv_bytes_per_token == 6_880
    window_bytes = 43 * 128 * 1024
    tail_bytes = (21 * (64 + 16) + 20 * 512) * 1024
    assert report.kv_bytes_per_sequence == window_bytes + tail_bytes
    assert report.kv_bytes_per_snapshot == window_bytes + 21 * 20 * 1024


def test_flash_in_fp8_takes_the_published_cache(packed: Report) -> None:
    # The published tables say 3,850 without padding.
    assert packed.kv_bytes_per_token - packed.kv_padding_per_token == 3_850.25
    assert packed.kv_bytes_per_token == 3_899.25
    assert packed.kv_bytes_per_snapshot == 43 * (584 * 128 + 128) + 21 * 20 * 1024
    assert "cache in fp8" in as_text(packed)
    assert "3,899.25 bytes per token (49.00 of it padding), in pages of 256" in as_text(packed)


def test_pro_has_the_published_parameters(tmp_path: Path) -> None:
    write_sparse(tmp_path / "pro", official_pro(), shards=2)
    counts = inspect(tmp_path / "pro").parameters
    assert round(counts.main / 1e12, 1) == 1.6
    assert round(counts.active / 1e9) == 49


def test_drafting_takes_its_block_and_room_for_its_guesses(flash: Path, report: Report) -> None:
    drafting = inspect(flash, ep_size=8, draft_tokens=3)
    block = drafting.loaded.per_rank_bytes - report.loaded.per_rank_bytes
    assert drafting.loaded.experts_bytes / report.loaded.experts_bytes == 44 / 43
    assert block > 6.4e9 * 2 / 8
    assert drafting.kv_bytes_per_token == report.kv_bytes_per_token
    # One more window, three more rows in 44 of them and in the compressors' rings.
    windows = 1024 * (128 + 44 * 3)
    tails = 3 * 2 * 4 * (21 * 2 * (512 + 128) + 20 * 512)
    assert drafting.kv_bytes_per_sequence - report.kv_bytes_per_sequence == windows + tails
    assert "with 3 draft tokens" in as_text(drafting)


def test_a_model_that_cannot_draft_is_told_at_once(tmp_path: Path) -> None:
    write_sparse(tmp_path / "model", SMALL, Variant(mtp=False))
    with pytest.raises(ConfigError, match="--draft-tokens 0"):
        inspect(tmp_path / "model", draft_tokens=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "official"])
@pytest.mark.parametrize(
    "variant", [OFFICIAL, Variant(dense=Form.UNQUANTISED, experts=Form.FP8, mtp=False)]
)
def test_predicted_memory_is_what_loading_and_allocating_take(
    tmp_path: Path, dtype: str, variant: Variant
) -> None:
    write_sparse(tmp_path / "model", SMALL, variant)
    report = inspect(tmp_path / "model", dtype=dtype, ep_size=4)
    compute = numerics(dtype).compute
    rank = load_weights(tmp_path / "model", SMALL, compute, experts=range(2, 4))
    assert report.loaded.per_rank_bytes == sum(tensor.nbytes for tensor in rank.values())
    kv = KVTensors(SMALL, EngineConfig(pages=3, max_sequences=2), compute)
    assert report.kv_bytes_per_token * report.page_tokens == kv.bytes_per_page
    assert report.kv_bytes_per_sequence == kv.bytes_per_slot
    assert report.kv_bytes_per_snapshot == kv.bytes_per_snapshot
    if variant.mtp:
        drafting = inspect(tmp_path / "model", dtype=dtype, draft_tokens=2)
        weights = load_weights(tmp_path / "model", SMALL, compute, mtp=True)
        assert drafting.loaded.per_rank_bytes == sum(tensor.nbytes for tensor in weights.values())
        kv = KVTensors(SMALL, EngineConfig(pages=3, max_sequences=2, draft_tokens=2), compute)
        assert drafting.kv_bytes_per_sequence == kv.bytes_per_slot


def test_text_tells_what_an_operator_asks(report: Report) -> None:
    text = as_text(report)
    for expected in (
        "official names, fp8 dense layers, fp4 experts, with MTP",
        "43 (2 window, 21 csa, 20 hca)",
        "284,332,240,471 (13,270,101,591 active per token)",
        "as stored on each of 8 ranks",
        "27.84 GB",
        "6,880.00 bytes per token (0.00 of it padding), in pages of 256",
    ):
        assert expected in text


def test_no_mtp_in_config_is_no_mtp(tmp_path: Path) -> None:
    config = replace(SMALL, num_nextn_predict_layers=0, compress_ratios=SMALL.compress_ratios[:-1])
    write_checkpoint(tmp_path / "model", config)
    report = inspect(tmp_path / "model")
    assert report.variant["mtp"] is False
    assert "no MTP" in as_text(report)


@pytest.mark.parametrize("ep_size", [0, 3, 16])
def test_experts_must_split_evenly(tmp_path: Path, ep_size: int) -> None:
    write_sparse(tmp_path / "model", SMALL)
    with pytest.raises(ConfigError, match=f"8 experts cannot be split evenly over {ep_size}"):
        inspect(tmp_path / "model", ep_size=ep_size)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    write_sparse(tmp_path / "model", SMALL)
    with (tmp_path / "model" / "model-0.safetensors").open("ab") as shard:
        shard.write(b"\0")
    with pytest.raises(CheckpointError, match="bytes on disk"):
        inspect(tmp_path / "model")
