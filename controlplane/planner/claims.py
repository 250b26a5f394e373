"""What others publish about V4-Flash's needs, each with our verdict and how it is derived.

Numbers in a verdict are computed when asked for, so they can never differ from what is planned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from controlplane.planner.capacity import budget
from controlplane.planner.cost import (
    Mix,
    TokenPrices,
    blended_usd,
    break_even_tokens_per_day,
    usd_per_million,
)
from controlplane.planner.geometry import V4_FLASH, V4_PRO
from controlplane.planner.memory import cache_size
from controlplane.planner.weights import (
    GIB,
    Form,
    active_parameters,
    parameters,
    total_bytes,
)

Word = Literal["confirmed", "refuted", "depends"]
MILLION = 2**20  # tokens of the longest context
LONGEST_OUTPUT = 393_216  # tokens, of DeepSeek's own API
LIST_PRICES = TokenPrices(hit_usd=0.0028, miss_usd=0.14, output_usd=0.28)
H200_GIB, A100_GIB = 140.4, 80.0  # as nvidia-smi tells


@dataclass(frozen=True)
class Verdict:
    """What we say to a published statement."""

    word: Word
    derivation: str


def _one_h200() -> Verdict:
    need = total_bytes(V4_FLASH) / GIB
    return Verdict("refuted", f"the weights are {need:.1f} GiB, an H200 has {H200_GIB} GiB")


def _two_a100() -> Verdict:
    room = budget(V4_FLASH, "tensor", 2, memory_gib=A100_GIB, mtp=False)
    return Verdict(
        "refuted",
        f"each of two GPUs holds {room.weights_bytes / GIB:.1f} GiB of weights and has "
        f"{room.usable_bytes / GIB:.1f} GiB for weights, overhead and cache",
    )


def _fp8_284() -> Verdict:
    native = total_bytes(V4_FLASH) / 1e9
    return Verdict(
        "refuted",
        f"published as FP4 and FP8 it is {native:.1f} GB; a byte for each of "
        f"{parameters(V4_FLASH, mtp=False) / 1e9:.1f} billion parameters is only its conversion",
    )


def _kv_million() -> Verdict:
    fp8 = cache_size(V4_FLASH, "fp8").sequence_bytes(MILLION) / 1e9
    bf16 = cache_size(V4_FLASH, "auto").sequence_bytes(MILLION) / 1e9
    return Verdict("refuted", f"{fp8:.2f} GB in FP8, {bf16:.2f} GB in bfloat16")


def _kv_128k() -> Verdict:
    fp8 = cache_size(V4_FLASH, "fp8").sequence_bytes(MILLION // 8) / 1e9
    return Verdict("refuted", f"{fp8:.2f} GB in FP8")


def _single_h100() -> Verdict:
    int4 = parameters(V4_FLASH, mtp=False) / 2 / 1e9
    return Verdict("confirmed", f"half a byte a parameter is {int4:.0f} GB")


def _bf16_h200() -> Verdict:
    four = budget(V4_FLASH, "tensor", 4, memory_gib=H200_GIB, form=Form.BFLOAT16, mtp=False)
    six = budget(V4_FLASH, "pipeline", 6, memory_gib=H200_GIB, form=Form.BFLOAT16, mtp=False)
    return Verdict(
        "confirmed",
        f"four are {-four.cache_bytes / GIB:.1f} GiB short each, "
        f"a pipeline of six has {six.cache_bytes / GIB:.1f} GiB left each",
    )


def _ten_times() -> Verdict:
    fp8 = cache_size(V4_FLASH, "fp8").per_token
    bf16 = cache_size(V4_FLASH, "auto").per_token
    older = 61 * (656 + 132)  # V3.2: layers times entry and index key
    plain = V4_FLASH.layers * 2 * V4_FLASH.head_dim
    return Verdict(
        "depends",
        f"{older / fp8:.1f} times smaller than V3.2's, {plain / bf16:.1f} times smaller than "
        "the same layers uncompressed",
    )


def _cost() -> Verdict:
    return Verdict(
        "confirmed",
        f"7.12 $/h at 1,000 tokens/s is {usd_per_million(7.12, 1000):.2f} $ a million, "
        "though four H200 were measured at 19,488 tokens/s",
    )


def _context() -> Verdict:
    return Verdict(
        "refuted", f"{V4_FLASH.max_positions} tokens of context, {LONGEST_OUTPUT} of output, text"
    )


def _four_4090() -> Verdict:
    int4 = parameters(V4_FLASH, mtp=False) / 2 / 1e9
    return Verdict("refuted", f"INT4 is {int4:.0f} GB, four of them have 96 GB")


def _parameters() -> Verdict:
    main, whole = parameters(V4_FLASH, mtp=False), parameters(V4_FLASH)
    return Verdict(
        "refuted",
        f"{main / 1e9:.1f} billion and {(whole - main) / 1e9:.1f} billion for drafting "
        f"are {whole / 1e9:.1f} billion",
    )


def _sessions() -> Verdict:
    room = budget(V4_FLASH, "tensor", 4, memory_gib=H200_GIB)
    cache = cache_size(V4_FLASH, "fp8")
    held = [round(room.sequences(cache, MILLION // part)) for part in (32, 8, 2, 1)]
    text = " / ".join(str(it) for it in held)
    return Verdict("refuted", f"{text} at 32K / 128K / 512K / 1M under tensor parallelism")


def _break_even() -> Verdict:
    price = blended_usd(LIST_PRICES, Mix(input_tokens=8, output_tokens=1))
    daily = break_even_tokens_per_day(9.42, price) / 1e9
    return Verdict(
        "confirmed", f"two H200 at 9.42 $/h need {daily:.2f} billion tokens a day at list price"
    )


def _layers() -> Verdict:
    active = active_parameters(V4_FLASH) / 1e9
    return Verdict(
        "confirmed",
        f"{V4_FLASH.layers} layers, {V4_FLASH.experts} experts, {active:.1f} billion active",
    )


def _saving() -> Verdict:
    ours = blended_usd(LIST_PRICES, Mix(input_tokens=3, output_tokens=7))
    return Verdict("depends", f"{ours:.3f} $ a million at 30 % input; the other's price moves")


def _topk() -> Verdict:
    return Verdict("refuted", f"{V4_FLASH.index_topk}; {V4_PRO.index_topk} is V4-Pro's")


def _said(word: Word, derivation: str) -> Callable[[], Verdict]:
    return lambda: Verdict(word, derivation)


CLAIMS: Mapping[str, Callable[[], Verdict]] = MappingProxyType(
    {
        "one-h200-fits": _one_h200,
        "two-a100-fit-158gb": _two_a100,
        "fp8-weights-284gb": _fp8_284,
        "kv-160gb-at-1m": _kv_million,
        "kv-20gb-at-128k": _kv_128k,
        "single-h100-int4": _single_h100,
        "bf16-needs-6-h200": _bf16_h200,
        "kv-10x-smaller": _ten_times,
        "cost-1.98-per-m": _cost,
        "context-128k": _context,
        "four-4090-int4": _four_4090,
        "a100-excluded": _said("depends", "on whether the engine has kernels for it"),
        "params-293b": _parameters,
        "kv-e5m2": _said("refuted", "V4's backends take auto, bfloat16, fp8 and fp8_ds_mla"),
        "dtype-fp8": _said("refuted", "no choice of that option; the checkpoint says its own"),
        "vllm-0.9-0.19": _said("refuted", "its recipe asks for 0.20, newer weights for 0.25"),
        "sessions-h200x4": _sessions,
        "breakeven-100s-of-m": _break_even,
        "output-384k": _said("confirmed", f"{LONGEST_OUTPUT} tokens"),
        "saving-94-percent": _saving,
        "flash-35-tok-s": _said("depends", "one endpoint at one time; another did 83.8"),
        "layers-43-experts": _layers,
        "index-topk-1024": _topk,
    }
)
