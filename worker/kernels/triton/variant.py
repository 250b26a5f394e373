"""One kernel as the real model launches it: what is compiled ahead of time and reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """`kernel` a @triton.jit function; `signature` argument name -> Triton type ("*bf16", "i32",
    "fp32"); `constexprs` the rest; `warps`, `stages` and a thread's `max_registers` as launched.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    warps: int = 4
    stages: int = 2
    max_registers: int | None = None
