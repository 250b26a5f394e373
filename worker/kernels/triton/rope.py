"""Interleaved rotary embedding of the last channels, in place: some heads of a token a program."""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.variant import Variant

BLOCK_H = 16


@triton.jit
def rotate_kernel(
    x,  # [T, HEADS, WIDTH], channels contiguous
    angles,  # [T, PAIRS, 2]
    token_stride,
    head_stride,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    CONJUGATE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    part = tl.arange(0, 2 * BLOCK_P)
    turn = tl.load(angles + token * (2 * PAIRS) + part, mask=part < 2 * PAIRS, other=0.0)
    cos, sin = tl.split(tl.reshape(turn, [1, BLOCK_P, 2]))
    if CONJUGATE:
        sin = -sin
    channels = x + token * token_stride + head[:, None] * head_stride + (WIDTH - 2 * PAIRS) + part
    inside = (head < HEADS)[:, None] & (part < 2 * PAIRS)[None, :]
    pairs = tl.load(channels, mask=inside, other=0.0).to(tl.float32)
    real, imaginary = tl.split(tl.reshape(pairs, [BLOCK_H, BLOCK_P, 2]))
    turned = tl.join(real * cos - imaginary * sin, real * sin + imaginary * cos)
    turned = tl.reshape(turned, [BLOCK_H, 2 * BLOCK_P])
    tl.store(channels, turned.to(x.dtype.element_ty), mask=inside)


def rotate_(x: torch.Tensor, angles: torch.Tensor) -> None:
    """Turn the last 2r channels of x [T, ..., D] in place, pair by pair, by the unit complex
    numbers `angles` [T, r] (complex64). Conjugated angles undo it; their conjugation is not
    carried out in memory."""
    if x.numel() == 0:
        return
    conjugate = angles.is_conj()
    parts = torch.view_as_real(angles.conj() if conjugate else angles).contiguous()
    heads = x.view(len(x), -1, x.shape[-1])
    assert heads.stride(2) == 1
    block = min(BLOCK_H, triton.next_power_of_2(heads.shape[1]))
    pairs = angles.shape[-1]
    rotate_kernel[len(x), triton.cdiv(heads.shape[1], block)](
        heads,
        parts,
        heads.stride(0),
        heads.stride(1),
        HEADS=heads.shape[1],
        WIDTH=heads.shape[2],
        PAIRS=pairs,
        CONJUGATE=conjugate,
        BLOCK_H=block,
        BLOCK_P=triton.next_power_of_2(pairs),
        num_warps=1,
    )


def _variant(name: str, heads: int, conjugate: bool) -> Variant:
    block = min(BLOCK_H, heads)
    return Variant(
        name,
        rotate_kernel,
        {"x": "*bf16", "angles": "*fp32", "token_stride": "i32", "head_stride": "i32"},
        {
            "HEADS": heads,
            "WIDTH": 512,
            "PAIRS": 32,
            "CONJUGATE": conjugate,
            "BLOCK_H": block,
            "BLOCK_P": 32,
        },
        warps=1,
    )


VARIANTS = (
    _variant("rotate, query heads", 64, conjugate=False),
    _variant("rotate back, attention output", 64, conjugate=True),
    _variant("rotate, entry", 1, conjugate=False),
)
