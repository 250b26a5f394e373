"""Number formats of the checkpoint: E8M0 scales, FP8 e4m3 blocks and packed FP4 e2m1.

Used by the loader, the writer and their tests. Under E8M0 scales every dequantised value is exact
in bfloat16 and float32: a four-bit or eight-bit number times a power of two.
"""

import torch

from worker.model.checkpoint import FP4_BLOCK, FP8_BLOCK

E4M3_MAX = 448.0
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E8M0_BIAS = 127


def _fp4_pairs() -> torch.Tensor:
    """[256] both float32 values of every byte as one 64-bit word: a whole checkpoint is looked up
    here, and one word at a time is five times as fast as one value at a time."""
    positive = torch.tensor(E2M1_VALUES)
    values = torch.cat((positive, -positive))
    codes = torch.arange(256)
    return (
        torch.stack((values[codes & 0xF], values[codes >> 4]), dim=-1).view(torch.int64).flatten()
    )


FP4_PAIRS = _fp4_pairs()


def scales(stored: torch.Tensor) -> torch.Tensor:
    """float32 scales. E8M0 bytes are powers of two, reinterpreted bit for bit, and 255 is NaN;
    float32 scales are themselves."""
    if stored.dtype == torch.float32:
        return stored
    return stored.view(torch.float8_e8m0fnu).float()


def dequantise_fp8(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """e4m3 [out, in] with E8M0 or float32 [ceil(out/128), ceil(in/128)] to float32 [out, in]."""
    rows, columns = weight.shape
    factor = scales(scale).repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return weight.float() * factor[:rows, :columns]


def dequantise_fp4(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """int8 [out, in/2], the low nibble the even input, with E8M0 [out, in/32], to float32."""
    pairs = FP4_PAIRS.to(packed.device)
    codes = packed.view(torch.uint8).flatten().int()
    values = pairs.index_select(0, codes).view(torch.float32).view(*scale.shape, FP4_BLOCK)
    return values.mul_(scales(scale).unsqueeze(-1)).flatten(-2)


def quantise_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [out, in] to e4m3 and the smallest power-of-two E8M0 scales that avoid overflow."""
    rows, columns = weight.shape
    pad = (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK)
    padded = torch.nn.functional.pad(weight, pad)
    down, across = -(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK)
    blocks = padded.view(down, FP8_BLOCK, across, FP8_BLOCK)
    largest = blocks.abs().amax(dim=(1, 3)).clamp(min=2.0**-100)
    exponent = torch.ceil(torch.log2(largest / E4M3_MAX)).to(torch.int32)
    stored = (exponent + E8M0_BIAS).to(torch.uint8).view(torch.float8_e8m0fnu)
    factor = scales(stored).repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return (weight / factor[:rows, :columns]).to(torch.float8_e4m3fn), stored


def quantise_fp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [out, in] to packed e2m1 int8 [out, in/2], the low nibble the even input, and the
    smallest power-of-two E8M0 scales [out, in/32] that avoid overflow. Halfway numbers go to the
    even code. `in` must be a multiple of 32."""
    blocks = torch.unflatten(weight, 1, (-1, FP4_BLOCK))
    largest = blocks.abs().amax(-1).clamp(min=2.0**-100)
    exponent = torch.ceil(torch.log2(largest / E2M1_VALUES[-1])).to(torch.int32)
    stored = (exponent + E8M0_BIAS).to(torch.uint8).view(torch.float8_e8m0fnu)
    size = (blocks / scales(stored).unsqueeze(-1)).abs().flatten(1)
    # Numbers are 0 to 2 in steps of a half, to 4 in ones, to 6 in twos.
    code = torch.where(
        size < 2,
        (2 * size).round(),
        torch.where(size < 4, 2 + size.round(), 4 + (size / 2).round()),
    )
    code = code.clamp(max=7).to(torch.uint8) | ((weight < 0).to(torch.uint8) << 3)
    low, high = torch.unflatten(code, 1, (-1, 2)).unbind(-1)
    return (low | (high << 4)).view(torch.int8), stored
