"""The layers of V4-Flash in its official numerics, in float64, from the published formulas alone.

Shares no code with the worker and reads the checkpoint's files by itself. Every product and sum is
float64; what training rounds is rounded: activations to e4m3 before FP8 and FP4 matrices, window
and compressed entries to e4m3, index queries and keys to e2m1 behind a Hadamard transform, and
whatever one operation hands to the next to bfloat16. `without` names roundings to leave out, to
show that each of them can be told from the result.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from support.formulas import E2M1, dequantised, doubly_stochastic, turned

ROUNDINGS = ("activations", "entries", "index", "hadamard")


def bf16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).double()


def scaled_blocks(x: torch.Tensor, width: int, largest: float, least: float) -> Any:
    """x [..., K] as blocks [..., K/width, width] of at most `largest`, and their scales."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % width))
    blocks = padded.unflatten(-1, (-1, width))
    peak = blocks.abs().amax(-1, keepdim=True).clamp(min=least)
    scale = torch.exp2(torch.ceil(torch.log2(peak / largest)))
    return blocks / scale, scale


def e4m3(x: torch.Tensor, width: int) -> torch.Tensor:
    """To 3 mantissa bits and exponents from -6, ties to even, a scale per `width` channels."""
    blocks, scale = scaled_blocks(x, width, 448, 1e-4)
    step = torch.exp2(torch.floor(torch.log2(blocks.abs().clamp(min=2**-6))) - 3)
    return ((blocks / step).round() * step * scale).flatten(-2)[..., : x.shape[-1]]


def e2m1(x: torch.Tensor) -> torch.Tensor:
    """To the nearest of 0, .5, 1, 1.5, 2, 3, 4, 6, ties to the even code; 32 channels a scale."""
    blocks, scale = scaled_blocks(x, 32, 6, 6 * 2.0**-126)
    away = (blocks.abs().unsqueeze(-1) - E2M1).abs()
    odd = torch.arange(8) % 2 * 1e-12
    return (E2M1[(away + odd).argmin(-1)] * blocks.sign() * scale).flatten(-2)


def hadamard(width: int) -> torch.Tensor:
    """H[i, j] = (-1)^popcount(i & j) / sqrt(width)."""
    signs = [[(-1.0) ** (i & j).bit_count() for j in range(width)] for i in range(width)]
    return torch.tensor(signs, dtype=torch.float64) / math.sqrt(width)


class OfficialReference:
    """One checkpoint. All sequences start at position 0. `chosen`: the experts [T, k] that each
    layer's last mixture went to."""

    def __init__(self, directory: Path, *, without: str = "") -> None:
        assert without in ("", *ROUNDINGS)
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.without = without
        self.chosen: dict[int, torch.Tensor] = {}
        self.stored: dict[str, torch.Tensor] = {}
        for file in directory.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:  # type: ignore[no-untyped-call]
                self.stored |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118

    def attention(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """The attention sublayer's output [T, D] for its normalised input x [T, D]."""
        c, p = self.config, f"layers.{layer}.attn."
        ratio, T, d = c["compress_ratios"][layer], len(x), c["head_dim"]
        position = torch.arange(T)
        latent = self.rms(self.linear(x, p + "wq_a"), p + "q_norm")
        q = self.rms(self.linear(latent, p + "wq_b").view(T, -1, d), None)
        q = bf16(self.rotated(q, position, ratio))
        kv = self.rms(self.linear(x, p + "wkv"), p + "kv_norm")
        kv = self.entry(bf16(self.rotated(kv, position, ratio)))
        back = position[:, None] - position
        seen = (back >= 0) & (back < c["sliding_window"])
        if ratio:
            entries = self.compressed(x, p + "compressor.", ratio, d)
            kv = torch.cat((kv, bf16(self.entry(entries))))
            seen = torch.cat((seen, self.visible(layer, x, latent)), 1)
        scores = torch.einsum("thd,sd->ths", q, kv) / math.sqrt(d)
        scores = scores.masked_fill(~seen[:, None], -math.inf)
        sink = self.stored[p + "attn_sink"].double()[None, :, None].expand(T, -1, 1)
        weights = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
        out = bf16(weights @ kv)
        out = bf16(self.rotated(out, -position, ratio)).reshape(T, c["o_groups"], -1)
        wo_a = self.weight(p + "wo_a").view(c["o_groups"], c["o_lora_rank"], -1)
        return self.linear(bf16(torch.einsum("tgi,goi->tgo", out, wo_a)).flatten(1), p + "wo_b")

    def visible(self, layer: int, x: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """[T, E] which entries each token attends to."""
        c, p = self.config, f"layers.{layer}.attn.indexer."
        ratio, T = c["compress_ratios"][layer], len(x)
        entry = torch.arange(T // ratio)
        finished = entry < ((torch.arange(T) + 1) // ratio)[:, None]
        if ratio != 4:
            return finished
        width = c["index_head_dim"]
        q = self.linear(latent, p + "wq_b").view(T, -1, width)
        q = self.index(bf16(self.rotated(q, torch.arange(T), ratio)))
        keys = self.index(self.compressed(x, p + "compressor.", ratio, width))
        w = bf16(x @ self.weight(p + "weights_proj").T)
        w = w / math.sqrt(width) / math.sqrt(c["index_n_heads"])
        scores = torch.einsum("th,thj->tj", w, torch.einsum("thd,jd->thj", q, keys).relu())
        scores = scores.masked_fill(~finished, -math.inf)
        best = scores.argsort(dim=-1, descending=True, stable=True)[:, : c["index_topk"]]
        return finished & torch.zeros_like(finished).scatter(1, best, True)

    def compressed(self, x: torch.Tensor, p: str, m: int, d: int) -> torch.Tensor:
        """Finished entries [T // m, d], normalised and rotated."""
        groups = len(x) // m
        x = x[: groups * m]
        kv = (x @ self.weight(p + "wkv").T).view(groups, m, -1)
        g = (x @ self.weight(p + "wgate").T).view(groups, m, -1) + self.stored[p + "ape"].double()
        if m == 4:  # two halves: the first belongs to the next group's entry
            before_kv = torch.cat((torch.zeros_like(kv[:1]), kv[:-1]))[..., :d]
            before_g = torch.cat((torch.full_like(g[:1], -math.inf), g[:-1]))[..., :d]
            kv, g = torch.cat((before_kv, kv[..., d:]), 1), torch.cat((before_g, g[..., d:]), 1)
        pooled = (g.softmax(1) * kv).sum(1)
        normed = self.normed(pooled) * self.stored[p + "norm.weight"].double()
        return self.rotated(normed, torch.arange(groups) * m, m)

    def experts(self, layer: int, x: torch.Tensor, token_ids: list[int]) -> torch.Tensor:
        """The mixture's output [T, D] for its normalised input x [T, D]."""
        c, p = self.config, f"layers.{layer}.ffn."
        s = torch.nn.functional.softplus(x @ self.weight(p + "gate").T).sqrt()
        if layer < c["num_hash_layers"]:
            chosen = self.stored[p + "gate.tid2eid"][token_ids]
        else:
            biased = s + self.stored[p + "gate.bias"].double()
            order = biased.argsort(dim=-1, descending=True, stable=True)
            chosen = order[:, : c["num_experts_per_tok"]]
        self.chosen[layer] = chosen
        w = s.gather(1, chosen)
        w = c["routed_scaling_factor"] * w / w.sum(1, keepdim=True)
        out = self.expert(x, p + "shared_experts", torch.ones(len(x), 1).double())
        for e in range(c["n_routed_experts"]):
            t, k = (chosen == e).nonzero(as_tuple=True)
            if len(t):
                out[t] += self.expert(x[t], f"{p}experts.{e}", w[t, k, None])
        return bf16(out)

    def expert(self, x: torch.Tensor, name: str, w: torch.Tensor) -> torch.Tensor:
        limit = self.config["swiglu_limit"]
        gate = self.linear(x, f"{name}.w1").clamp(max=limit)
        up = self.linear(x, f"{name}.w3").clamp(-limit, limit)
        return self.linear(bf16(gate * torch.sigmoid(gate) * up * w), f"{name}.w2")

    def layer(self, layer: int, X: torch.Tensor, token_ids: list[int]) -> torch.Tensor:
        """Streams [T, n, D] behind a layer, from those before it."""
        X = self.sublayer(layer, "attn", X, lambda x: self.attention(layer, x))
        return self.sublayer(layer, "ffn", X, lambda x: self.experts(layer, x, token_ids))

    def sublayer(self, layer: int, kind: str, X: torch.Tensor, function: Any) -> torch.Tensor:
        n, eps, p = X.shape[1], self.config["hc_eps"], f"layers.{layer}.hc_{kind}_"
        fn, b, s = (self.stored[p + k].double() for k in ("fn", "base", "scale"))
        z = self.normed(X.flatten(1)) @ fn.T
        pre = torch.sigmoid(z[:, :n] * s[0] + b[:n]) + eps
        post = 2 * torch.sigmoid(z[:, n : 2 * n] * s[1] + b[n : 2 * n])
        C = (z[:, 2 * n :] * s[2] + b[2 * n :]).view(-1, n, n).softmax(-1) + eps
        C = doubly_stochastic(C, self.config["hc_sinkhorn_iters"], eps)
        x = self.rms(bf16((pre[..., None] * X).sum(1)), f"layers.{layer}.{kind}_norm")
        y = function(x)
        return bf16(post[..., None] * y[:, None] + torch.einsum("tjk,tjd->tkd", C, X))

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """An FP8 or FP4 matrix times rounded activations."""
        return bf16((x if self.without == "activations" else e4m3(x, 128)) @ self.weight(name).T)

    def entry(self, x: torch.Tensor) -> torch.Tensor:
        """A cache row as it is stored: e4m3 but for the rotated channels."""
        if self.without == "entries":
            return x
        r = self.config["qk_rope_head_dim"]
        return torch.cat((e4m3(x[..., :-r], 64), x[..., -r:]), -1)

    def index(self, x: torch.Tensor) -> torch.Tensor:
        """An index query or key."""
        turned = x if self.without == "hadamard" else x @ hadamard(x.shape[-1])
        return turned if self.without == "index" else e2m1(turned)

    def rotated(self, x: torch.Tensor, position: torch.Tensor, ratio: int) -> torch.Tensor:
        """The last r channels of x [T, ..., d] in adjacent pairs; YaRN in compressed layers."""
        c = self.config
        r, yarn = c["qk_rope_head_dim"], c["rope_scaling"]
        theta = c["compress_rope_theta"] if ratio else c["rope_theta"]
        frequency = theta ** -(torch.arange(0, r, 2).double() / r)
        if ratio and yarn:
            length = yarn["original_max_position_embeddings"]
            low, high = (
                r * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
                for turns in (yarn["beta_fast"], yarn["beta_slow"])
            )
            low, high = max(math.floor(low), 0), min(math.ceil(high), r - 1)
            ramp = ((torch.arange(r // 2) - low) / max(high - low, 0.001)).clamp(0, 1).double()
            frequency = frequency * (1 - ramp) + frequency / yarn["factor"] * ramp
        angle = position.double().view(-1, *(1,) * (x.dim() - 1)) * frequency
        return turned(x, angle)

    def rms(self, x: torch.Tensor, norm: str | None) -> torch.Tensor:
        scaled = self.normed(x)
        return bf16(scaled if norm is None else scaled * self.weight(norm))

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()

    def weight(self, name: str) -> torch.Tensor:
        """A tensor in float64, dequantised."""
        return dequantised(self.stored, name)
