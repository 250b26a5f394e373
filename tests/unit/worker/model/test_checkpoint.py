from collections import Counter
from dataclasses import replace
from math import prod

from support.v4 import FLASH, SMALL

from worker.model.checkpoint import expected_tensors

DTYPE_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I64": 8, "I8": 1}


def test_flash_has_the_published_number_of_tensors_of_each_dtype() -> None:
    table = expected_tensors(FLASH)
    assert len(table) == 69_187
    assert Counter(spec.dtype for spec in table.values()) == {
        "BF16": 433,
        "F32": 417,
        "F8_E4M3": 375,
        "F8_E8M0": 34_167,
        "I64": 3,
        "I8": 33_792,
    }


def test_flash_has_the_published_size() -> None:
    table = expected_tensors(FLASH)
    data_bytes = sum(DTYPE_BYTES[s.dtype] * prod(s.shape) for s in table.values())
    assert data_bytes == 159_609_485_896


def test_without_mtp_layers_there_are_no_mtp_tensors() -> None:
    config = replace(SMALL, num_nextn_predict_layers=0, compress_ratios=SMALL.compress_ratios[:-1])
    assert not [name for name in expected_tensors(config) if name.startswith("mtp.")]
