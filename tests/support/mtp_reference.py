"""The multi-token-prediction block in float64, written from the published formulas alone: it shares
no code with the worker and reads the checkpoint's files by itself."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from support.formulas import dequantised, doubly_stochastic, turned


class MtpReference:
    """One checkpoint's block. `X` are the model's last streams [T, n, D]; `followers[t]` is the
    token after position t."""

    def __init__(self, directory: Path) -> None:
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.stored: dict[str, torch.Tensor] = {}
        for file in directory.glob("*.safetensors"):
            with safe_open(file, "pt") as tensors:  # type: ignore[no-untyped-call]
                for name in tensors.keys():  # noqa: SIM118
                    if name.startswith(("mtp.0.", "embed.", "head.")):
                        self.stored[name.removeprefix("mtp.0.")] = tensors.get_tensor(name)

    def streams(self, X: torch.Tensor, followers: list[int]) -> torch.Tensor:
        """The block's streams [T, n, D] over a whole sequence from position 0."""
        embedded = self.rms(self.weight("embed")[followers], "enorm")
        hidden = self.rms(X.double(), "hnorm") @ self.weight("h_proj").T
        X = (embedded @ self.weight("e_proj").T)[:, None] + hidden
        X = self.sublayer(X, "attn", self.attention)
        return self.sublayer(X, "ffn", self.experts)

    def logits(self, X: torch.Tensor) -> torch.Tensor:
        """[T, vocab] from the block's streams."""
        z = self.flat(X) @ self.stored["hc_head_fn"].double().T
        base, scale = self.stored["hc_head_base"].double(), self.stored["hc_head_scale"].double()
        pre = torch.sigmoid(z * scale + base) + self.config["hc_eps"]
        return self.rms((pre[..., None] * X).sum(1), "norm") @ self.weight("head").T

    def sublayer(self, X: torch.Tensor, kind: str, function: Any) -> torch.Tensor:
        n, eps = X.shape[1], self.config["hc_eps"]
        z = self.flat(X) @ self.stored[f"hc_{kind}_fn"].double().T
        s, b = self.stored[f"hc_{kind}_scale"].double(), self.stored[f"hc_{kind}_base"].double()
        pre = torch.sigmoid(z[:, :n] * s[0] + b[:n]) + eps
        post = 2 * torch.sigmoid(z[:, n : 2 * n] * s[1] + b[n : 2 * n])
        C = ((z[:, 2 * n :] * s[2] + b[2 * n :]).view(-1, n, n).softmax(-1)) + eps
        C = doubly_stochastic(C, self.config["hc_sinkhorn_iters"], eps)
        y = function(self.rms((pre[..., None] * X).sum(1), f"{kind}_norm"))
        return post[..., None] * y[:, None] + torch.einsum("tjk,tjd->tkd", C, X)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        c = self.config
        T, d, r = len(x), c["head_dim"], c["qk_rope_head_dim"]
        q = self.rms(x @ self.weight("attn.wq_a").T, "attn.q_norm") @ self.weight("attn.wq_b").T
        q = self.rotated(self.rms(q.view(T, -1, d), None), r)
        kv = self.rotated(self.rms(x @ self.weight("attn.wkv").T, "attn.kv_norm")[:, None], r)[:, 0]
        scores = torch.einsum("thd,sd->hts", q, kv) / math.sqrt(d)
        back = torch.arange(T)[:, None] - torch.arange(T)
        scores[:, (back < 0) | (back >= c["sliding_window"])] = -math.inf
        sink = self.stored["attn.attn_sink"].double()[:, None, None].expand(-1, T, 1)
        weights = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
        out = self.rotated(torch.einsum("hts,sd->thd", weights, kv), r, inverse=True)
        groups = c["o_groups"]
        wo_a = self.weight("attn.wo_a").view(groups, c["o_lora_rank"], -1)
        mixed = torch.einsum("tgi,goi->tgo", out.reshape(T, groups, -1), wo_a)
        return mixed.flatten(1) @ self.weight("attn.wo_b").T

    def experts(self, x: torch.Tensor) -> torch.Tensor:
        c = self.config
        s = torch.nn.functional.softplus(x @ self.weight("ffn.gate").T).sqrt()
        biased = s + self.stored["ffn.gate.bias"].double()
        out = self.expert(x, "ffn.shared_experts")
        for t in range(len(x)):
            chosen = biased[t].argsort(descending=True, stable=True)[: c["num_experts_per_tok"]]
            for e in chosen.tolist():
                w = c["routed_scaling_factor"] * s[t, e] / s[t, chosen].sum()
                out[t] += w * self.expert(x[t : t + 1], f"ffn.experts.{e}")[0]
        return out

    def expert(self, x: torch.Tensor, name: str) -> torch.Tensor:
        limit = self.config["swiglu_limit"]
        gate = (x @ self.weight(f"{name}.w1").T).clamp(max=limit)
        up = (x @ self.weight(f"{name}.w3").T).clamp(-limit, limit)
        return (gate * torch.sigmoid(gate) * up) @ self.weight(f"{name}.w2").T

    def rotated(self, x: torch.Tensor, r: int, *, inverse: bool = False) -> torch.Tensor:
        """The last r of x [T, H, d] in adjacent pairs, by plain RoPE at positions 0, 1, ..."""
        frequency = self.config["rope_theta"] ** -(torch.arange(0, r, 2).double() / r)
        angle = torch.arange(len(x)).double()[:, None, None] * frequency * (-1 if inverse else 1)
        return turned(x, angle)

    def rms(self, x: torch.Tensor, norm: str | None) -> torch.Tensor:
        scaled = x * (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()
        return scaled if norm is None else scaled * self.weight(norm)

    def flat(self, X: torch.Tensor) -> torch.Tensor:
        return self.rms(X.flatten(1), None)

    def weight(self, name: str) -> torch.Tensor:
        """A tensor in float64, dequantised."""
        return dequantised(self.stored, name)
