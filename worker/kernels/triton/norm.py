"""Root-mean-square normalisation over the last axis, some rows to a program."""

import torch
import triton
import triton.language as tl

from worker.kernels.triton.variant import Variant

ELEMENTS = 4096  # of one program: whole rows, as many as fit


@triton.jit
def rms_norm_kernel(
    x,  # [rows, WIDTH]
    weight,  # [WIDTH], or None
    out,  # [rows, WIDTH]
    rows,
    eps,
    WIDTH: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = (tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)[:, None]
    channel = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < rows) & (channel < WIDTH)
    at = row * WIDTH + channel
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value * value, 1, keep_dims=True) / WIDTH
    value = value * tl.rsqrt(mean + eps)
    if weight is not None:
        value *= tl.load(weight + channel, mask=channel < WIDTH, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """x [..., D] over its root mean square, in float32, times `weight` [D] if given; x's dtype."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    rows = x.numel() // width
    if rows == 0:
        return out
    block_d = triton.next_power_of_2(width)
    block_r = max(1, ELEMENTS // block_d)
    rms_norm_kernel[triton.cdiv(rows, block_r),](
        x, weight, out, rows, eps, WIDTH=width, BLOCK_R=block_r, BLOCK_D=block_d, num_warps=4
    )
    return out


def _variant(name: str, width: int, weight: str | None) -> Variant:
    signature = {"x": "*bf16", "out": "*bf16", "rows": "i32", "eps": "fp32"}
    constexprs: dict[str, int | None] = {"WIDTH": width, "BLOCK_R": ELEMENTS // width}
    constexprs["BLOCK_D"] = width
    if weight is None:
        constexprs["weight"] = None
    else:
        signature["weight"] = weight
    return Variant(name, rms_norm_kernel, signature, constexprs)


VARIANTS = (
    _variant("rms norm, sublayer input", 4096, "*bf16"),
    _variant("rms norm, query latent", 1024, "*bf16"),
    _variant("rms norm, entry", 512, "*bf16"),
    _variant("rms norm, query heads", 512, None),
)
