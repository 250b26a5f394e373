"""Multi-query attention over listed cache rows, with a learned sink per head."""

import torch


def sparse_attention(
    query: torch.Tensor,  # [T, H, D]
    pools: list[torch.Tensor],  # each [N, D]; a row is both key and value; the last row is zero
    indices: list[torch.Tensor],  # each [T, K]: rows of the pool beside it; -1 is absent
    sink: torch.Tensor,  # [H] float32 logits that take weight and give no value
    scale: float,
) -> torch.Tensor:
    """Attention output [T, H, D] in the query's dtype; float32 inside. Row -1 is the pool's last,
    hence zero: an absent entry can bring no stale value into the sum."""
    rows = [_rows(pool, index) for pool, index in zip(pools, indices, strict=True)]
    kv = torch.cat(rows, 1).float()  # [T, K, D]
    absent = torch.cat(indices, 1) < 0  # [T, K]
    scores = (query.float() * scale) @ kv.transpose(1, 2)  # [T, H, K]
    scores.masked_fill_(absent.unsqueeze(1), float("-inf"))
    column = sink.view(1, -1, 1).expand(len(query), -1, 1)
    weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
    return (weights @ kv).to(query.dtype)


def _rows(pool: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    # embedding copies whole rows; indexing with a tensor goes element by element.
    return torch.nn.functional.embedding(torch.where(index < 0, len(pool) - 1, index), pool)
