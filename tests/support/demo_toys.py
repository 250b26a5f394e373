"""A small form of the demo model, and documents it learns within seconds: say a word again."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from support.v4 import SMALL

from worker.demo.batches import Document, Packed, chunk
from worker.demo.loop import Progress, begin, candidates, train
from worker.demo.presets import Preset
from worker.demo.state import TrainingState

TOY_MODEL = replace(
    SMALL,
    vocab_size=1_024,
    hidden_size=64,
    head_dim=64,
    qk_rope_head_dim=16,
    sliding_window=64,
    num_hidden_layers=3,
    num_hash_layers=1,
    compress_ratios=(0, 4, 32, 0),
    index_topk=256,
    n_routed_experts=4,
    index_n_heads=4,
    hc_sinkhorn_iters=4,
)
TOY = Preset(
    TOY_MODEL,
    minutes=1,
    step_tokens=512,
    matrix_rate=0.004,
    rate=0.01,
    sampled_rows=128,
    warmup_steps=5,
    draft_every=1,
)
KNOWN = list(range(64))
AGAIN, END = 3, 1  # tokens: from here on the words come once more; the document's last


def echo(number: int) -> Document:
    """Words of the whole vocabulary, then the same words again, which are to be learned."""
    draw = random.Random(number)
    words = [draw.randrange(4, TOY_MODEL.vocab_size) for _ in range(draw.randrange(4, 24))]
    ids = [0, *words, AGAIN, *words, END]
    return Document(ids, [False] * (len(words) + 2) + [True] * (len(words) + 1), "echo")


def batches(state: TrainingState) -> Iterator[tuple[int, int, Packed]]:
    """From the state's place on."""
    number, skip = state.chunk, state.batch
    while True:
        content = chunk(echo, number, examples=100, step_tokens=TOY.step_tokens)
        for i, packed in enumerate(content[skip:], skip):
            yield number, i, packed
        number, skip = number + 1, 0


def trained(state: TrainingState, told: Callable[[Progress], None] | None = None) -> list[Progress]:
    """Run a state to its planned end, and return what was told of each step."""
    steps: list[Progress] = []

    def tell(progress: Progress) -> None:
        steps.append(progress)
        if told is not None:
            told(progress)

    train(
        state,
        TOY,
        candidates(state, TOY, "cpu"),
        batches(state),
        compute=torch.float32,
        told=tell,
    )
    return steps


def fresh(seed: int = 0) -> TrainingState:
    """A toy run at its beginning."""
    return begin("toy", TOY, KNOWN, seed)
