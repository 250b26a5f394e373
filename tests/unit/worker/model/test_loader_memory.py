"""What loading costs: memory, and which experts are read."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.checkpoints import write_sparse
from support.v4 import SMALL

from worker.model.checkpoint import (
    OFFICIAL,
    ROUTED_EXPERT,
    Form,
    TensorSpec,
    Variant,
    expected_tensors,
)
from worker.model.loader import load_weights
from worker.model.shards import Extent, read_tensor
from worker.model.tiny import write_checkpoint

LARGE = replace(SMALL, hidden_size=512, moe_intermediate_size=512, n_routed_experts=32)
PLAIN = Variant(dense=Form.UNQUANTISED, experts=Form.UNQUANTISED, mtp=False)
MEASURE = """
import json, sys
from pathlib import Path
import torch
from worker.config import ModelConfig
from worker.model.loader import load_weights

def load(directory):
    return load_weights(directory, ModelConfig.from_dir(directory), torch.bfloat16)

def memory(name):  # not getrusage: its peak counts what the parent had when it forked
    return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[0])

load(sys.argv[1])  # threads and libraries are there from now on
before = memory("VmRSS:")
weights = load(sys.argv[2])
peak = memory("VmHWM:")
print(json.dumps([peak - before, sum(t.nbytes for t in weights.values())]))
"""


@pytest.mark.parametrize(("variant", "shards"), [(PLAIN, 16), (OFFICIAL, 2)])
def test_peak_memory_is_the_weights_and_less_than_one_shard(
    tmp_path: Path, variant: Variant, shards: int
) -> None:
    write_sparse(tmp_path / "small", SMALL, variant)
    write_sparse(tmp_path / "large", LARGE, variant, shards)
    shard_bytes = max(p.stat().st_size for p in (tmp_path / "large").glob("*.safetensors"))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    grown_bytes, final_bytes = json.loads(answer)
    assert final_bytes > 200e6
    assert final_bytes <= grown_bytes <= final_bytes + shard_bytes


def test_a_rank_reads_its_own_experts_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", SMALL)
    whole = load_weights(tmp_path / "model", SMALL, torch.float32)
    ranks = [
        load_weights(tmp_path / "model", SMALL, torch.float32, experts=range(first, first + 4))
        for first in (0, 4)
    ]
    assert ranks[0].keys() | ranks[1].keys() == whole.keys()
    shared = ranks[0].keys() & ranks[1].keys()
    assert shared == {name for name in whole if ".experts." not in name}
    for rank in ranks:
        assert all(torch.equal(tensor, whole[name]) for name, tensor in rank.items())


def test_a_rank_reads_its_share_of_the_experts_bytes(tmp_path: Path) -> None:
    def bytes_read(experts: range | None) -> int:
        def total() -> int:
            return int(Path("/proc/self/io").read_text().split()[1])  # rchar

        before = total()
        load_weights(tmp_path / "model", SMALL, torch.float32, experts=experts)
        return total() - before

    write_checkpoint(tmp_path / "model", SMALL)
    layers = [n for n in expected_tensors(SMALL).items() if not n[0].startswith("mtp.")]
    experts_bytes = sum(spec.nbytes for name, spec in layers if ROUTED_EXPERT.fullmatch(name))
    whole = bytes_read(None)
    assert whole > experts_bytes
    # Other threads of this process may read a little meanwhile.
    assert whole - bytes_read(range(4, 6)) == pytest.approx(experts_bytes * 3 / 4, rel=0.01)


def test_a_file_shortened_after_its_header_was_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    path.write_bytes(bytes(100))
    with pytest.raises(OSError, match="shard ended early"):
        read_tensor(Extent(path, 60, TensorSpec("F32", (4, 4))))
