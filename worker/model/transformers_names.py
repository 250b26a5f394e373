"""transformers' names of the tensors, for checkpoints that it has saved under its own.

`loader` calls both functions. There every expert of a layer lies in two tensors,
`gate_up_proj` [experts, 2I, D] (w1 above w3) and `down_proj` [experts, D, I].
"""

import re
from collections.abc import Mapping

from worker.model.checkpoint import ROUTED_EXPERT, TensorSpec
from worker.model.shards import Extent

# In this order: a later pattern sees what an earlier one wrote.
RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^embed\.", "embed_tokens."),
        (r"^hc_head_", "hc_head.hc_"),
        (r"\.attn\.indexer\.compressor\.", ".self_attn.compressor.indexer."),
        (r"\.attn\.indexer\.wq_b\.", ".self_attn.compressor.indexer.q_b_proj."),
        (r"\.attn\.indexer\.weights_proj\.", ".self_attn.compressor.indexer.scorer.weights_proj."),
        (r"\.attn\.", ".self_attn."),
        (r"\.ffn\.", ".mlp."),
        (r"\.attn_norm\.", ".input_layernorm."),
        (r"\.ffn_norm\.", ".post_attention_layernorm."),
        (r"\.hc_(attn|ffn)_", r".\1_hc."),
        (r"\.attn_sink$", ".sinks"),
        (r"\.(compressor|indexer)\.norm\.", r".\1.kv_norm."),
        (r"\.ape$", ".position_bias"),
        (r"\.wq_([ab])\.", r".q_\1_proj."),
        (r"\.wkv\.", ".kv_proj."),
        (r"\.wgate\.", ".gate_proj."),
        (r"\.wo_([ab])\.", r".o_\1_proj."),
        (r"\.q_norm\.", ".q_a_norm."),
        (r"\.gate\.bias$", ".gate.e_score_correction_bias"),
        (r"\.shared_experts\.w1\.", ".shared_experts.gate_proj."),
        (r"\.shared_experts\.w2\.", ".shared_experts.down_proj."),
        (r"\.shared_experts\.w3\.", ".shared_experts.up_proj."),
    )
]


def stored_table(table: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """What such a checkpoint holds, from the table of official names (unquantised, no MTP)."""
    stored: dict[str, TensorSpec] = {}
    for name, spec in table.items():
        match = ROUTED_EXPERT.fullmatch(name)
        if match is None:
            stored[_stored_name(name)] = spec
            continue
        rows, columns = spec.shape
        rows = rows if match[3] == "w2" else 2 * rows
        # Experts come in ascending order: the last one's number tells how many there are.
        shape = (int(match[2]) + 1, rows, columns)
        stored[_fused_name(match[1], match[3])] = TensorSpec(spec.dtype, shape)
    return stored


def official_extents(
    table: Mapping[str, TensorSpec], stored: Mapping[str, Extent]
) -> dict[str, Extent]:
    """Where each official tensor lies; `stored` holds at least `stored_table(table)`."""
    extents: dict[str, Extent] = {}
    for name, spec in table.items():
        match = ROUTED_EXPERT.fullmatch(name)
        if match is None:
            extents[name] = stored[_stored_name(name)]
            continue
        fused = stored[_fused_name(match[1], match[3])]
        rows = spec.shape[0]
        first = int(match[2]) * fused.spec.shape[1] + (rows if match[3] == "w3" else 0)
        extents[name] = fused.matrix(first, rows)
    return extents


def _stored_name(name: str) -> str:
    if name == "head.weight":
        return "lm_head.weight"
    for pattern, replacement in RENAMES:
        name = pattern.sub(replacement, name)
    return f"model.{name}"


def _fused_name(experts: str, part: str) -> str:
    return _stored_name(f"{experts}.{'down_proj' if part == 'w2' else 'gate_up_proj'}")
