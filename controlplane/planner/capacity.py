"""What is left for the cache on each GPU, and how many sequences that holds.

Tensor parallelism gives every GPU the same single KV head, so that a replica holds what one GPU
holds; expert parallelism runs attention on each GPU by itself, so that they add up; a pipeline's
GPUs each hold the cache of their own layers.
"""

from dataclasses import dataclass
from math import ceil

from controlplane.planner.geometry import Geometry
from controlplane.planner.memory import CacheSize
from controlplane.planner.refusal import DoesNotFit
from controlplane.planner.weights import GIB, Form, Parallelism, bytes_per_gpu


@dataclass(frozen=True)
class Budget:
    """Memory of one replica's fullest GPU, in bytes.

    Attributes:
        usable_bytes: what the engine may take: utilisation times the GPU's memory.
        copies: GPUs, or groups of them, that each have a cache of their own.
        share: of a sequence's cache that one GPU holds, 0 to 1.
    """

    usable_bytes: float
    weights_bytes: int
    overhead_bytes: float
    copies: int
    share: float

    @property
    def cache_bytes(self) -> float:
        """What is left for the cache; negative: the weights do not fit."""
        return self.usable_bytes - self.weights_bytes - self.overhead_bytes

    def sequences(self, cache: CacheSize, tokens: int) -> float:
        """Return how many sequences of `tokens` tokens the replica holds at once."""
        each = self.share * cache.sequence_bytes(tokens)
        return self.copies * max(self.cache_bytes, 0.0) / each

    def require(self, cache: CacheSize, tokens: int, what: str) -> None:
        """Check that each copy of the cache holds one sequence of `tokens` tokens.

        Raises:
            DoesNotFit: it does not; the message tells what is missing on each GPU.
        """
        missing = self.share * cache.sequence_bytes(tokens) - self.cache_bytes
        if missing > 0:
            raise DoesNotFit(
                f"{what}: {missing / GIB:.1f} GiB short on each GPU "
                f"({self.weights_bytes / GIB:.1f} GiB weights, "
                f"{self.overhead_bytes / GIB:.1f} GiB overhead, "
                f"{self.share * cache.sequence_bytes(tokens) / GIB:.1f} GiB for a sequence of "
                f"{tokens} tokens, {self.usable_bytes / GIB:.1f} GiB usable)",
                missing_gib=missing / GIB,
            )


def budget(
    model: Geometry,
    parallelism: Parallelism,
    gpus: int,
    *,
    memory_gib: float,
    utilization: float = 0.90,
    overhead_gib: float = 2.5,
    form: Form = Form.NATIVE,
    mtp: bool = True,
) -> Budget:
    """Return how a GPU's memory is divided; `memory_gib` is what nvidia-smi tells."""
    share = ceil(model.layers / gpus) / model.layers if parallelism == "pipeline" else 1.0
    return Budget(
        usable_bytes=utilization * memory_gib * GIB,
        weights_bytes=bytes_per_gpu(model, parallelism, gpus, form=form, mtp=mtp),
        overhead_bytes=overhead_gib * GIB,
        copies=gpus if parallelism == "expert" else 1,
        share=share,
    )
