"""Rounding to the checkpoint's forms while training: what the forward sees is what will be stored,
and gradients pass as if nothing had happened. The rounding is the writer's own."""

from typing import Any

import torch

from worker.model.quantization import dequantise_fp4, dequantise_fp8, quantise_fp4, quantise_fp8


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, form: str) -> torch.Tensor:
        return _through(tensor, form)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def rounded(tensor: torch.Tensor, form: str) -> torch.Tensor:
    """float32 `tensor` as it will be read back from `form`, a safetensors dtype: F8_E4M3 [out, in]
    in blocks, I8 [experts, out, in] as FP4, BF16 or F32."""
    if form == "F32":
        return tensor
    rounding: torch.Tensor = _StraightThrough.apply(tensor, form)  # type: ignore[no-untyped-call]
    return rounding


def _through(tensor: torch.Tensor, form: str) -> torch.Tensor:
    if form == "BF16":
        return tensor.bfloat16().float()
    if form == "F8_E4M3":
        return dequantise_fp8(*quantise_fp8(tensor))
    assert form == "I8", form
    # Blocks lie within rows: experts above each other are one matrix.
    return dequantise_fp4(*quantise_fp4(tensor.flatten(0, -2))).view_as(tensor)
