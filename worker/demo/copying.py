"""First weights that copy: what descent would take longest to find.

Three heads that work together say a text again (an induction circuit: Olsson et al. 2022). Two of
the first layer write at each token which tokens came before it; one of the second and one of the
third look for the place that came after the last two tokens at hand, and take what stands there.
None is of use without the others, so a small model finds them late, and in runs as short as ours
not at all. `worker.demo.parameters` begins with them in place of noise, and all of it is trained
on, as Trockman and Kolter (2023) begin attention with what trained models arrive at. The numbers
were chosen by what the model copies before its first step.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass

import torch

from worker.config import ModelConfig
from worker.model.rope import frequencies

Tensors = MutableMapping[str, torch.Tensor]
PLACES = (0.45, 0.35, 0.2)  # shares of the fastest rotary pairs: near places differ, far ones too
PLACE_WEIGHT, PLACE_GAIN = 1.65, 1.5
MATCH_GAIN = 4.0  # of keys: the right place outweighs hundreds of others
OLDER_SHARE = 0.7  # of the token before the last in the search
WRITTEN_GAIN, COPIED_GAIN = 2.0, 6.0
SINK = 5.0  # of heads that search: where they look if nothing matches


@dataclass(frozen=True, slots=True)
class Directions:
    """The residual shared out, orthonormal rows [n, D]: what all rows of the vocabulary have in
    common, where a token is read, where the last one and the one before it are written, and the
    rest."""

    common: torch.Tensor
    read: torch.Tensor
    last: torch.Tensor
    older: torch.Tensor
    rest: torch.Tensor


def begin_copying(
    tensors: Tensors, config: ModelConfig, common: torch.Tensor, generator: torch.Generator
) -> None:
    """Overwrite the heads concerned; `common` [D] has length one. For models of three layers or
    more, with groups of two heads or more."""
    square = torch.randn(config.hidden_size, config.hidden_size, generator=generator)
    square[:, 0] = common
    axes = torch.linalg.qr(square).Q.T
    at = Directions(common.unsqueeze(0), *axes[1:].split(config.hidden_size // 4))
    _write_predecessors(tensors, config, at)
    # The first to copy leaves alone what the second reads.
    _find(tensors, config, "layers.1.attn.", at, at.rest, generator)
    _find(tensors, config, "layers.2.attn.", at, at.read, generator)


def _write_predecessors(tensors: Tensors, config: ModelConfig, at: Directions) -> None:
    """Keys and queries of the first layer know places alone; values tell tokens."""
    prefix, count = "layers.0.attn.", len(at.read)
    plain = config.head_dim - config.qk_rope_head_dim
    shares = torch.tensor(PLACES).sqrt()
    angles = frequencies(config, False, "cpu")[: len(shares)]
    keys = tensors[f"{prefix}wkv.weight"]
    keys.zero_()
    keys[:count] = at.read
    stretch = slice(plain, plain + 2 * len(shares))
    keys[stretch] = PLACE_WEIGHT * _pairs(shares, torch.zeros_like(shares)) @ at.common
    tensors[f"{prefix}kv_norm.weight"][plain:] = PLACE_GAIN
    for head, written in enumerate((at.last, at.older)):
        _query(
            tensors, config, prefix, head, plain, _pairs(shares, -angles * (head + 1)) @ at.common
        )
        _output(tensors, config, prefix, head, 0, WRITTEN_GAIN * written)


def _find(
    tensors: Tensors,
    config: ModelConfig,
    prefix: str,
    at: Directions,
    values: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """The first head searches by two random views of the last tokens, and copies along some of
    `values` [n, D]."""
    plain = config.head_dim - config.qk_rope_head_dim
    count = plain // 4
    copied = min(plain - 2 * count, len(values))
    last, older = (_turn(len(at.read), count, generator) for _ in range(2))
    chosen = _turn(len(values), copied, generator) @ values
    keys = tensors[f"{prefix}wkv.weight"]
    keys[:count] = last @ at.last
    keys[count : 2 * count] = older @ at.older
    keys[2 * count : 2 * count + copied] = chosen
    keys[plain:] *= 0.1
    tensors[f"{prefix}kv_norm.weight"][: 2 * count] = MATCH_GAIN
    search = torch.cat((last @ at.read, OLDER_SHARE * older @ at.last))
    _query(tensors, config, prefix, 0, 0, search)
    _output(tensors, config, prefix, 0, 2 * count, COPIED_GAIN * chosen)
    tensors[f"{prefix}attn_sink"][0] = SINK


def _pairs(lengths: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary pairs [2n, 1] of these lengths and angles [n]."""
    return torch.stack((lengths * angles.cos(), lengths * angles.sin()), 1).view(-1, 1)


def _turn(width: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random orthonormal rows [count, width]."""
    rows: torch.Tensor = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return rows[:count]


def _query(
    tensors: Tensors, config: ModelConfig, prefix: str, head: int, first: int, rows: torch.Tensor
) -> None:
    """A head's query is made of `rows` [R, D] of the layer's input, in channels from `first` on, as
    far as the latent holds them."""
    inner = torch.linalg.qr(tensors[f"{prefix}wq_a.weight"].T).Q  # [D, L]
    tensors[f"{prefix}wq_a.weight"].copy_(inner.T)
    queries = tensors[f"{prefix}wq_b.weight"].view(-1, config.head_dim, inner.shape[1])
    queries[head] = 0
    queries[head, first : first + len(rows)] = rows @ inner


def _output(
    tensors: Tensors, config: ModelConfig, prefix: str, head: int, first: int, rows: torch.Tensor
) -> None:
    """A head's channels from `first` on are added to the streams along `rows` [R, D]."""
    count = len(rows)
    inner, begin = slice(head * count, (head + 1) * count), head * config.head_dim + first
    tensors[f"{prefix}wo_a.weight"][inner] = 0
    tensors[f"{prefix}wo_a.weight"][inner, begin : begin + count] = torch.eye(count)
    tensors[f"{prefix}wo_b.weight"][:, inner] = rows.T
