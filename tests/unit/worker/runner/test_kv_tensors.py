from dataclasses import replace

import pytest
import torch
from support.v4 import ENGINE, FLASH, SMALL

from worker.config import EngineConfig
from worker.errors import ConfigError
from worker.runner.kv_tensors import KV_FORMATS, KVTensors

FP8 = EngineConfig(device="meta", pages=1, max_sequences=1, snapshots_kept=1, kv_format="fp8")


def test_flash_needs_the_published_memory_per_token() -> None:
    kv = KVTensors(FLASH, EngineConfig(pages=1, max_sequences=1), torch.bfloat16)
    assert kv.bytes_per_page == 256 * 6_880


def test_flash_needs_the_published_memory_per_sequence() -> None:
    kv = KVTensors(FLASH, EngineConfig(pages=1, max_sequences=1), torch.bfloat16)
    window = 43 * 128 * 512 * 2
    tails = 21 * (65_536 + 16_384) + 20 * 524_288
    assert kv.bytes_per_slot == window + tails


def test_the_draft_head_has_a_window_only_where_there_are_drafts() -> None:
    drafting = replace(ENGINE, draft_tokens=3)
    assert KVTensors(SMALL, ENGINE, torch.float32).drafting is None
    cache = KVTensors(SMALL, drafting, torch.float32).drafting
    assert cache is not None
    rows = SMALL.sliding_window + 3
    assert cache.window.data.shape == (ENGINE.max_sequences + 1, rows, SMALL.head_dim)
    assert (cache.entries, cache.index) == (None, None)


def test_only_main_layers_have_memory() -> None:
    kv = KVTensors(SMALL, ENGINE, torch.float32)
    kinds = [(layer.entries is not None, layer.index is not None) for layer in kv.layers]
    assert kinds == [(False, False), (True, True), (True, False), (True, True), (True, False)]


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_clear_forgets_whole_slots(kv_format: str) -> None:
    engine = replace(ENGINE, max_sequences=4, draft_tokens=1, kv_format=kv_format)
    kv = KVTensors(SMALL, engine, torch.float32)
    assert kv.drafting is not None
    tensors = [layer.window.data for layer in (*kv.layers, kv.drafting)]
    tensors += [c.tail for layer in kv.layers for c in (layer.entries, layer.index) if c]
    for tensor in tensors:
        tensor[:] = 1
    kv.clear([1, 3])
    for tensor in tensors:
        assert tensor.flatten(1).amax(1).tolist()[:4] == [1, 0, 1, 0]
        assert tensor.flatten(1).amin(1).tolist()[:4] == [1, 0, 1, 0]


def test_flash_in_fp8_takes_the_published_bytes() -> None:
    kv = KVTensors(FLASH, FP8, torch.bfloat16)
    window, csa, hca = kv.layers[0], kv.layers[2], kv.layers[3]
    assert csa.entries is not None
    assert csa.index is not None
    assert hca.entries is not None
    assert csa.entries.pages.data[0].nbytes == 37_440
    assert csa.index.pages.data[0].nbytes == 64 * 132
    assert hca.entries.pages.data[0].nbytes == 1_728
    assert window.window.packing is not None
    assert 128 * window.window.packing.entry_bytes == 74_752
    assert window.window.data[0].nbytes == 74_752 + 128  # a whole number of 576-byte rows
    assert kv.bytes_per_page == 21 * (37_440 + 64 * 132) + 20 * 1_728
    assert (kv.bytes_per_page - kv.padding_per_page) / 256 == 21 * (584 + 132) / 4 + 20 * 584 / 128


def test_a_snapshot_of_flash_is_a_fraction_of_its_slot() -> None:
    kv = KVTensors(FLASH, FP8, torch.bfloat16)
    assert kv.bytes_per_snapshot == 43 * (74_752 + 128) + 21 * 20 * 1024
    assert kv.bytes_per_snapshot < kv.bytes_per_slot / 4


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: auto, fp8"):
        KVTensors(SMALL, replace(ENGINE, kv_format="int4"), torch.float32)
