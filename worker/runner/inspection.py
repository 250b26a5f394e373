"""What a model directory holds and what serving it takes, without reading any weights.

`flashplane-worker model inspect` calls `inspect` and prints the report. Tensor sizes come from the
checkpoint's own headers, cache sizes from the allocator that serving uses.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from worker.config import CSA_RATIO, EngineConfig, ModelConfig
from worker.model.checkpoint import ROUTED_EXPERT
from worker.model.loader import Checkpoint, loaded_dtype, open_checkpoint
from worker.model.numerics import numerics
from worker.parallel.groups import check_split
from worker.runner.kv_tensors import KVTensors


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts of trained numbers; scales and expert tables are none. `main` leaves out
    multi-token prediction, and `active` are those of `main` that one token multiplies with."""

    main: int
    mtp: int
    active: int


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of weights: routed experts, of which each rank holds its share, and the rest, which
    every rank holds."""

    experts_bytes: int
    replicated_bytes: int
    per_rank_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """`stored` is the checkpoint as it lies on disk, multi-token prediction included; `loaded` is
    what this worker keeps of it in `dtype`, which is without that unless it drafts. A sequence's
    cache takes `kv_bytes_per_token` for each token (`kv_padding_per_token` of them hold nothing),
    rounded up to whole pages of `page_tokens`, and `kv_bytes_per_sequence` at any length; a kept
    prefix its pages and `kv_bytes_per_snapshot`."""

    directory: str
    variant: dict[str, str | bool]
    geometry: dict[str, Any]
    layers: dict[str, int]
    parameters: Parameters
    tensors: int
    files: int
    disk_bytes: int
    ep_size: int
    stored: Share
    dtype: str
    draft_tokens: int
    loaded: Share
    page_tokens: int
    kv_format: str
    kv_bytes_per_token: float
    kv_padding_per_token: float
    kv_bytes_per_sequence: int
    kv_bytes_per_snapshot: int


def inspect(
    directory: str | Path,
    *,
    dtype: str = "bfloat16",
    ep_size: int = 1,
    draft_tokens: int = 0,
    kv_format: str = "auto",
) -> Report:
    """Check the directory's headers and measure. Raises ConfigError (UnsupportedModelError for
    another architecture, others where nothing can draft) and CheckpointError."""
    root = Path(directory)
    config = ModelConfig.from_dir(root)
    check_split(config.n_routed_experts, ep_size)
    compute = numerics(dtype).compute
    checkpoint = open_checkpoint(root, config)
    if draft_tokens:
        checkpoint.require_mtp(config)
    files = {extent.path for extent in checkpoint.extents.values()}
    # The "meta" device allocates shapes only; one of each tells its size.
    engine = EngineConfig(
        device="meta",
        pages=1,
        max_sequences=1,
        snapshots_kept=1,
        draft_tokens=draft_tokens,
        kv_format=kv_format,
    )
    kv = KVTensors(config, engine, compute)
    variant = checkpoint.variant
    return Report(
        directory=str(root.resolve()),
        variant={
            "naming": variant.naming.value,
            "dense": variant.dense.value,
            "experts": variant.experts.value,
            "mtp": config.num_nextn_predict_layers > 0 and variant.mtp,
        },
        geometry=asdict(config),
        layers=_layers(config),
        parameters=_parameters(checkpoint, config),
        tensors=checkpoint.stored_tensors,
        files=len(files),
        disk_bytes=sum(path.stat().st_size for path in files),
        ep_size=ep_size,
        stored=_share(
            ((name, extent.spec.nbytes) for name, extent in checkpoint.extents.items()), ep_size
        ),
        dtype=dtype,
        draft_tokens=draft_tokens,
        loaded=_share(_loaded_sizes(checkpoint, compute, mtp=draft_tokens > 0), ep_size),
        page_tokens=config.page_tokens,
        kv_format=kv_format,
        kv_bytes_per_token=kv.bytes_per_page / config.page_tokens,
        kv_padding_per_token=kv.padding_per_page / config.page_tokens,
        kv_bytes_per_sequence=kv.bytes_per_slot,
        kv_bytes_per_snapshot=kv.bytes_per_snapshot,
    )


def _layers(config: ModelConfig) -> dict[str, int]:
    ratios = config.compress_ratios[: config.num_hidden_layers]
    return {
        "window": sum(ratio == 0 for ratio in ratios),
        "csa": sum(ratio == CSA_RATIO for ratio in ratios),
        "hca": sum(ratio not in (0, CSA_RATIO) for ratio in ratios),
    }


def _parameters(checkpoint: Checkpoint, config: ModelConfig) -> Parameters:
    main = mtp = experts = 0
    for name, spec in checkpoint.table.items():
        if name.endswith((".scale", ".tid2eid")):
            continue
        count = math.prod(spec.unpacked_shape)
        if name.startswith("mtp."):
            mtp += count
            continue
        main += count
        experts += count if ROUTED_EXPERT.fullmatch(name) else 0
    chosen = experts // config.n_routed_experts * config.num_experts_per_tok
    embedding = config.vocab_size * config.hidden_size  # looked up, not multiplied
    return Parameters(main, mtp, main - experts + chosen - embedding)


def _loaded_sizes(
    checkpoint: Checkpoint, compute: torch.dtype, *, mtp: bool
) -> Iterable[tuple[str, int]]:
    for name in checkpoint.loaded(mtp=mtp):
        spec = checkpoint.table[name]
        yield name, math.prod(spec.unpacked_shape) * loaded_dtype(name, spec, compute).itemsize


def _share(sizes: Iterable[tuple[str, int]], ep_size: int) -> Share:
    experts = replicated = 0
    for name, size in sizes:
        if ROUTED_EXPERT.fullmatch(name):
            experts += size
        else:
            replicated += size
    return Share(experts, replicated, replicated + experts // ep_size)


def as_text(report: Report) -> str:
    """The report for a person; decimal units, as disks and memories are sold."""
    variant, geometry, parameters = report.variant, report.geometry, report.parameters
    layers = ", ".join(f"{count} {kind}" for kind, count in report.layers.items())
    mtp = f", {parameters.mtp:,} for multi-token prediction" if variant["mtp"] else ""
    drafting = f", with {report.draft_tokens} draft tokens" if report.draft_tokens else ""
    stored = report.dtype if report.kv_format == "auto" else report.kv_format
    ranks = "on one rank" if report.ep_size == 1 else f"on each of {report.ep_size} ranks"
    rows = {
        "directory": report.directory,
        "storage": f"{variant['naming']} names, {variant['dense']} dense layers, "
        f"{variant['experts']} experts, {'with' if variant['mtp'] else 'no'} MTP",
        "layers": f"{geometry['num_hidden_layers']} ({layers})",
        "hidden": f"{geometry['hidden_size']}, {geometry['num_attention_heads']} heads of "
        f"{geometry['head_dim']}, vocabulary {geometry['vocab_size']}",
        "experts": f"{geometry['n_routed_experts']} of width {geometry['moe_intermediate_size']}, "
        f"{geometry['num_experts_per_tok']} per token",
        "context": f"{geometry['max_position_embeddings']} positions",
        "parameters": f"{parameters.main:,} ({parameters.active:,} active per token){mtp}",
        "on disk": f"{report.disk_bytes:,} bytes in {report.files} files, {report.tensors} tensors",
        f"as stored {ranks}": _share_text(report.stored),
        f"in {report.dtype} {ranks}": _share_text(report.loaded) + drafting,
        f"cache in {stored}": f"{report.kv_bytes_per_token:,.2f} bytes per token "
        f"({report.kv_padding_per_token:,.2f} of it padding), in pages of {report.page_tokens}, "
        f"{report.kv_bytes_per_sequence:,} bytes per sequence, "
        f"{report.kv_bytes_per_snapshot:,} bytes per snapshot" + drafting,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _share_text(share: Share) -> str:
    return (
        f"{_size(share.per_rank_bytes)} (of {_size(share.experts_bytes)} experts, "
        f"{_size(share.replicated_bytes)} the rest)"
    )


def _size(count: int) -> str:
    unit = "GB" if count >= 1e9 else "MB"
    return f"{count / (1e9 if unit == 'GB' else 1e6):.2f} {unit}"
