"""Small V4 models on disk, and sequences fed through a runner by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch

from benchmarks.engine.models import FLASH
from worker.batch import Batch, ScheduledSequence, SequenceOutput
from worker.config import EngineConfig, ModelConfig
from worker.kernels import reference
from worker.kernels.load import BACKENDS
from worker.model.ragged import lay_out
from worker.model.tiny import TINY
from worker.request import SamplingParams
from worker.runner.model_runner import ModelRunner

# Short enough to reach every mechanism in a few hundred tokens: window, HCA, top-k, second page.
SMALL = replace(
    TINY,
    vocab_size=384,
    hidden_size=96,
    head_dim=32,
    qk_rope_head_dim=16,
    q_lora_rank=40,
    sliding_window=24,
    compress_ratios=(0, 4, 32, 4, 32, 0),
    num_hidden_layers=5,
    num_hash_layers=2,
    index_topk=12,
)
GREEDY = SamplingParams(max_tokens=1, temperature=0.0, logprobs=0)
ENGINE = EngineConfig(pages=64, max_sequences=12)


def official_pro() -> ModelConfig:
    """The geometry of DeepSeek-V4-Pro."""
    return replace(
        FLASH,
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=128,
        q_lora_rank=1536,
        o_groups=16,
        compress_ratios=(128, 128, *(4, 128) * 29, 4, 0),
        index_topk=1024,
        n_routed_experts=384,
        moe_intermediate_size=3072,
        routed_scaling_factor=2.5,
    )


@dataclass
class Sequences:
    """Sequences in progress over one runner, each with its own slot and pages."""

    runner: ModelRunner
    lengths: dict[int, int] = field(default_factory=dict)  # tokens so far, by state slot
    pages: dict[int, list[int]] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)  # positions whose entries exist already
    next_page: int = 0

    def scheduled(
        self, slot: int, token_ids: list[int], sampling: SamplingParams = GREEDY
    ) -> ScheduledSequence:
        """The next chunk of the sequence in `slot`, sampling after it."""
        start = self.lengths.get(slot, 0)
        stop = self.lengths[slot] = start + len(token_ids)
        pages = self.pages.setdefault(slot, [])
        while len(pages) * self.runner.config.page_tokens < stop:
            pages.append(self.next_page)
            self.next_page += 1
        return ScheduledSequence(
            str(slot),
            token_ids,
            start,
            list(pages),
            slot,
            sampling,
            sample_position=stop,
            known_tokens=self.known.get(slot, 0),
        )

    def fork(self, source: int, destination: int) -> None:
        """Account for a slot copied at a page boundary: full pages are shared."""
        assert self.lengths[source] % self.runner.config.page_tokens == 0
        self.lengths[destination] = self.lengths[source]
        self.pages[destination] = list(self.pages[source])

    def execute(self, chunks: dict[int, list[int]], **batch: object) -> list[SequenceOutput]:
        """One step through the runner's public door."""
        scheduled = [self.scheduled(slot, ids) for slot, ids in chunks.items()]
        return self.runner.execute(Batch(scheduled, **batch))  # type: ignore[arg-type]

    @torch.inference_mode()
    def logits(self, chunks: dict[int, list[int]]) -> dict[int, torch.Tensor]:
        """One step, and the logits [len(chunk), vocab] of every row."""
        scheduled = [self.scheduled(slot, ids) for slot, ids in chunks.items()]
        laid_out = lay_out(scheduled, self.runner.config, self.runner.engine)
        rows = self.runner.model.logits(self.runner.model(laid_out, self.runner.kv.layers))
        split = rows.split([len(ids) for ids in chunks.values()])
        return dict(zip(chunks, split, strict=True))


def backend_with(**ops: Callable[..., object]) -> str:
    """Register the reference kernels with some operations replaced; returns the new name."""
    reference_ops = {name: getattr(reference, name) for name in reference.__all__}
    name = f"reference with {', '.join(ops)}"
    backend = SimpleNamespace(**{**reference_ops, **ops})
    BACKENDS[name] = lambda config, device: backend
    return name
