"""Models whose own draft head is often right, as a trained one's is, and guesses from a script."""

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from support.checkpoints import Tensors, rewrite

from worker.batch import Batch, SequenceOutput
from worker.engine.core import Runner

ONE = 0x38  # 1.0 in e4m3
NO_POWER = 127  # 2**0 in e8m0


def write_predictable(source: Path, target: Path, *, damping: int) -> Path:
    """`source` with every layer's contribution divided by 2**damping, and a draft head that knows
    nothing but the token before: the more damping, the more often it is right."""

    def change(tensors: Tensors) -> Tensors:
        changed = dict(tensors)
        for name, tensor in tensors.items():
            if name.endswith((".wo_b.scale", ".w2.scale")):
                powers = tensor.view(torch.uint8).int() - damping
                changed[name] = powers.to(torch.uint8).view(tensor.dtype)
        width = tensors["norm.weight"].shape[0]
        identity = torch.eye(width).to(torch.float8_e4m3fn)
        assert int(identity.view(torch.uint8)[0, 0]) == ONE
        changed["mtp.0.e_proj.weight"] = identity
        changed["mtp.0.h_proj.weight"] = torch.zeros_like(identity)
        changed["mtp.0.e_proj.scale"] = torch.full_like(
            tensors["mtp.0.e_proj.scale"].view(torch.uint8), NO_POWER
        ).view(torch.float8_e8m0fnu)
        changed["mtp.0.enorm.weight"] = torch.ones_like(tensors["norm.weight"])
        changed["mtp.0.norm.weight"] = tensors["norm.weight"].clone()
        return changed

    rewrite(source, target, change)
    if (source / "tokenizer.json").exists():
        shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    return target


class ScriptedRunner:
    """`runner` with guesses of the test's own: each seed's requests say `outputs[seed]`, and its
    guesses are a right beginning of random length, then wrong."""

    def __init__(self, runner: Runner, outputs: Mapping[int, list[int]], draft_tokens: int) -> None:
        self._runner = runner
        self._outputs = outputs
        self._draft_tokens = draft_tokens
        self._random = random.Random(0)
        self._prompt_tokens: dict[str, int] = {}
        self.tried = self.right = 0

    def execute(self, batch: Batch) -> list[SequenceOutput]:
        outputs = self._runner.execute(batch)
        scripted: list[SequenceOutput] = []
        for s, output in zip(batch.sequences, outputs, strict=True):
            if not output.tokens:
                scripted.append(output)
                continue
            assert s.sample_position is not None
            self.tried += s.draft_count
            self.right += len(output.tokens) - 1
            prompt = self._prompt_tokens.setdefault(s.request_id, s.sample_position)
            at = s.sample_position - prompt + len(output.tokens)
            guesses = self._outputs[s.sampling.seed][at : at + self._draft_tokens]
            right = self._random.randint(0, len(guesses))
            guesses = guesses[:right] + [guess ^ 1 for guess in guesses[right:]]
            scripted.append(replace(output, draft_token_ids=guesses))
        return scripted
