"""Rows of the vocabulary that nobody has to store, and which rows learn.

The whole vocabulary has 129,280 tokens; the dialogues use some thousands of them often enough to
learn their rows. The others keep a random row each, made from a counter: the install makes the
same row that training saw. Since embedding and head are tied in training, a random row is enough
to copy a token that was never met: what the row is does not matter, only that it is one's own.

Randomness is the raw output of Philox, which NumPy keeps the same between versions, in integer
arithmetic: a row is the same on every machine.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy
import torch

from worker.config import ModelConfig

ROW_KEY, TABLE_KEY = 0x6465_6D6F, 0x6861_7368  # of the two streams
SUMMANDS = 4  # 16-bit uniform numbers, whose sum is nearly normal


def random_rows(config: ModelConfig) -> torch.Tensor:
    """[vocab, D] bfloat16, nearly Gaussian of unit variance."""
    stream = numpy.random.Philox(key=ROW_KEY)
    rows = torch.empty(config.vocab_size, config.hidden_size, dtype=torch.bfloat16)
    for part in torch.split(
        rows, 8_192
    ):  # 64-bit words of the whole would be four times the result
        words = stream.random_raw(part.numel()).view(numpy.uint16).reshape(-1, SUMMANDS)
        sums = words.sum(1, dtype=numpy.int32) - SUMMANDS * 0xFFFF // 2
        # A uniform number has variance 1/12, the sum of four 1/3.
        unit = sums.astype(numpy.float32) * numpy.float32(3**0.5 / 65_536)
        part.copy_(torch.from_numpy(unit).view(part.shape))
    return rows


def hash_table(config: ModelConfig) -> torch.Tensor:
    """[hash layers, vocab, k] expert ids, distinct for each token: tables `tid2eid`."""
    stream = numpy.random.Philox(key=TABLE_KEY)
    shape = (config.num_hash_layers, config.vocab_size, config.n_routed_experts)
    order = stream.random_raw(shape[0] * shape[1] * shape[2]).reshape(shape)
    chosen = order.argsort(axis=-1, kind="stable")[..., : config.num_experts_per_tok]
    return torch.from_numpy(numpy.ascontiguousarray(chosen))


def frequent(documents: Iterable[Sequence[int]], *, least: int, most: int) -> list[int]:
    """The ids that occur `least` times or more, the `most` most frequent of them, ascending."""
    counts: Counter[int] = Counter()
    for ids in documents:
        counts.update(ids)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return sorted(token for token, count in ranked[:most] if count >= least)
