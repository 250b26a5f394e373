"""Pieces of the network that a compiler makes one pass of, where there is one.

A piece is a plain function of tensors, marked by `fused`; `compile_pieces` decides for all of them.
Between pieces stand products, attention and sorting, which are fast as they are.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_plain: dict[str, Callable[..., object]] = {}
_compiled: dict[str, Callable[..., object]] = {}


def fused(piece: Callable[P, R]) -> Callable[P, R]:
    """Mark a piece. Its shapes should be few: each is compiled anew."""
    _plain[piece.__qualname__] = piece

    @wraps(piece)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        return _compiled.get(piece.__qualname__, piece)(*args, **kwargs)  # type: ignore[return-value]

    return chosen


def compile_pieces(on: bool) -> None:
    """Compile each piece at its next call (some minutes in all, kept by torch), or run them as they
    stand. One process trains one model: the choice is the process's."""
    _compiled.clear()
    if on:
        _compiled.update({n: torch.compile(p, dynamic=False) for n, p in _plain.items()})
