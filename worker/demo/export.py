"""The demo model stored, and installed: what is trained in the checkpoint's own forms, and the
official checkpoint that everybody else reads.

`python -m worker.demo.export RUN FILE` stores a run; `flashplane-worker model demo` installs.

The stored form is one compressed file of every trained tensor as the checkpoint has it, the
vocabulary rows that learned, and their ids. The other rows and the hash tables are made again from
their counters, and head and embedding, which are one in training, are written twice.
"""

import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from worker.config import ModelConfig
from worker.demo.parameters import ROWS, table
from worker.demo.presets import preset
from worker.demo.state import TrainingState, load
from worker.demo.vocabulary import frozen_rows, hash_table
from worker.errors import ConfigError, WorkerError
from worker.model.quantization import quantise_fp4, quantise_fp8
from worker.model.tiny import official_config, published, tokenizer_file, write_model

IDS = "rows.ids"
SCALE = ".scale"
MAGIC = b"flashplane-demo-1\n"
COMPRESSION = 6


def stored(state: TrainingState, config: ModelConfig) -> bytes:
    """The stored form of a run."""
    tensors: dict[str, torch.Tensor] = {IDS: torch.tensor(state.known, dtype=torch.int32)}
    for name, parameter in table(config, len(state.known)).items():
        tensor = state.tensors[name].detach().float().cpu()
        tensors.update(_formed(name, tensor, parameter.form))
    head = json.dumps(official_config(config), sort_keys=True).encode() + b"\n"
    return MAGIC + head + zlib.compress(save_tensors(tensors), COMPRESSION)


def install(content: bytes, directory: Path) -> None:
    """Write the official checkpoint and its tokenizer, all at once. Raises ConfigError if
    `directory` has content, or `content` is not a stored model."""
    config, tensors = _read(content)
    tokenizer = tokenizer_file()
    ids, learned = tensors.pop(IDS).long(), tensors.pop(ROWS)
    rows = frozen_rows(config)
    rows[ids] = learned
    tensors |= {"embed.weight": rows, "head.weight": rows.clone()}
    for layer, experts in enumerate(hash_table(config)):
        tensors[f"layers.{layer}.ffn.gate.tid2eid"] = experts.contiguous()
    with published(directory) as work:
        shutil.copyfile(tokenizer, work / "tokenizer.json")
        write_model(work, config, tensors)


def main(
    run: Annotated[Path, typer.Argument(help="A run's directory.")],
    file: Annotated[Path, typer.Argument(help="The stored form to write.")],
) -> None:
    """Store what a run has trained."""
    try:
        state = load(run, "cpu")
        content = stored(state, preset(state.preset).model)
        file.write_bytes(content)
    except (WorkerError, OSError) as error:
        typer.echo(f"worker.demo.export: {error}", err=True)
        sys.exit(1)
    typer.echo(f"wrote {file}: {len(content) / 1e6:.1f} MB")


def _formed(name: str, tensor: torch.Tensor, form: str) -> dict[str, torch.Tensor]:
    """A trained tensor under the names and in the forms of the checkpoint."""
    if form == "I8":  # [experts, out, in]
        prefix, matrix = name.rsplit(".", 1)
        return {
            part: stored
            for expert, weight in enumerate(tensor)
            for part, stored in _pair(f"{prefix}.{expert}.{matrix}", quantise_fp4(weight)).items()
        }
    if form == "F8_E4M3":
        return _pair(name.removesuffix(".weight"), quantise_fp8(tensor))
    return {name: tensor.bfloat16() if form == "BF16" else tensor}


def _pair(name: str, quantised: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    weight, scale = quantised
    return {f"{name}.weight": weight.contiguous(), f"{name}{SCALE}": scale.view(torch.uint8)}


def _read(content: bytes) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    if not content.startswith(MAGIC):
        raise ConfigError("this is not a stored demo model")
    head, _, body = content.removeprefix(MAGIC).partition(b"\n")
    config = ModelConfig.from_official(json.loads(head))
    tensors = load_tensors(zlib.decompress(body))
    # safetensors can write E8M0 but not load it from memory: stored as bytes.
    scales = {n: t.view(torch.float8_e8m0fnu) for n, t in tensors.items() if n.endswith(SCALE)}
    return config, tensors | scales


if __name__ == "__main__":
    typer.run(main)
