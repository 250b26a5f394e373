"""Multi-query attention over listed cache rows, with a learned sink per head."""

import torch

from worker.kernels.entry_pool import EntryPool
from worker.kernels.reference.pool import load_rows


def sparse_attention(
    query: torch.Tensor,  # [T, H, D]
    pools: list[EntryPool],  # a row is both key and value; each pool's last row is zero
    indices: list[torch.Tensor],  # each [T, K]: rows of the pool beside it; -1 is absent
    sink: torch.Tensor,  # [H] float32 logits that take weight and give no value
    scale: float,
) -> torch.Tensor:
    """Attention output [T, H, D] in the query's dtype; float32 inside."""
    rows = [load_rows(p, index, query.dtype) for p, index in zip(pools, indices, strict=True)]
    kv = torch.cat(rows, 1).float()  # [T, K, D]
    absent = torch.cat(indices, 1) < 0  # [T, K]
    scores = (query.float() * scale) @ kv.transpose(1, 2)  # [T, H, K]
    scores.masked_fill_(absent.unsqueeze(1), float("-inf"))
    column = sink.view(1, -1, 1).expand(len(query), -1, 1)
    weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
    return (weights @ kv).to(query.dtype)
