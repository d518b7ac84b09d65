"""The bundled model's network: a small qwen3moe, written for training on one CPU thread.

The graph is exactly what a GGUF reader runs for `general.architecture = qwen3moe`:

    h   = x + Wo . attention(rope(qk_norm(Wq . n)), rope(qk_norm(Wk . n)), Wv . n)     n = RMSNorm(x)
    out = h + sum over the top k experts of  weight_e * down_e(silu(gate_e(m)) * up_e(m))   m = RMSNorm(h)

with RMS norms of q and k per head, NEOX rotary pairs (j, j + head_dim/2), grouped-query attention, a softmax
router over all experts whose top-k weights are renormalised, and an output matrix tied to the embedding.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int = 2048
    hidden: int = 192
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 8
    top_k: int = 2
    expert_width: int = 160
    context: int = 512
    eps: float = 1e-6
    rope_base: float = 10000.0

    def as_dict(self):
        return asdict(self)


class Experts(nn.Module):
    """All experts of a layer. Tokens are sorted by expert so that each weight matrix sees one dense product."""

    def __init__(self, c: Config):
        super().__init__()
        self.top_k = c.top_k
        self.experts = c.experts
        self.router = nn.Linear(c.hidden, c.experts, bias=False)
        self.gate = nn.Parameter(torch.empty(c.experts, c.expert_width, c.hidden))
        self.up = nn.Parameter(torch.empty(c.experts, c.expert_width, c.hidden))
        self.down = nn.Parameter(torch.empty(c.experts, c.hidden, c.expert_width))

    def forward(self, x):
        """x [n][hidden] -> (y [n][hidden], balance loss, tokens per expert [experts])."""
        probs = self.router(x).softmax(-1)
        weights, chosen = probs.topk(self.top_k, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)

        slots = chosen.flatten()
        order = slots.argsort(stable=True)
        rows = order // self.top_k
        counts = torch.bincount(slots, minlength=self.experts)
        gate, up, down = self.gate.unbind(0), self.up.unbind(0), self.down.unbind(0)
        parts = []
        for e, part in enumerate(x.index_select(0, rows).split(counts.tolist())):
            parts.append(F.linear(F.silu(F.linear(part, gate[e])) * F.linear(part, up[e]), down[e]))
        y = torch.cat(parts) * weights.flatten().index_select(0, order).unsqueeze(-1)
        y = torch.zeros_like(x).index_add_(0, rows, y)

        # Switch Transformer's balance loss: 1 when both shares are uniform, up to `experts` when one expert takes all.
        share = counts.to(probs.dtype) / slots.numel()
        balance = self.experts * (share * probs.mean(0)).sum()
        return y, balance, counts


class Layer(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.attn_norm = nn.RMSNorm(c.hidden, c.eps)
        self.q = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(c.head_dim, c.eps)
        self.k_norm = nn.RMSNorm(c.head_dim, c.eps)
        self.o = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)
        self.ffn_norm = nn.RMSNorm(c.hidden, c.eps)
        self.experts = Experts(c)

    def attention(self, x, cos, sin):
        c, (batch, length, _) = self.c, x.shape
        q = self.q_norm(self.q(x).view(batch, length, c.heads, c.head_dim))
        k = self.k_norm(self.k(x).view(batch, length, c.kv_heads, c.head_dim))
        v = self.v(x).view(batch, length, c.kv_heads, c.head_dim)
        q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
        group = c.heads // c.kv_heads
        k = k.repeat_interleave(group, 1)
        v = v.transpose(1, 2).repeat_interleave(group, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, length, -1))

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attn_norm(x), cos, sin)
        y, balance, counts = self.experts(self.ffn_norm(x).flatten(0, 1))
        return x + y.view_as(x), balance, counts


def rotate(x, cos, sin):
    """NEOX rope: element j turns with element j + head_dim/2. x [batch][length][heads][head_dim]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Model(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c.vocab, c.hidden)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.norm = nn.RMSNorm(c.hidden, c.eps)
        half = torch.arange(c.head_dim // 2)
        angle = torch.arange(c.context)[:, None] * c.rope_base ** (-2.0 * half / c.head_dim)[None, :]
        self.register_buffer("cos", angle.cos()[:, None, :], persistent=False)
        self.register_buffer("sin", angle.sin()[:, None, :], persistent=False)
        self.reset()

    def reset(self):
        """Normal(0, 0.05), what writes to the residual stream starts smaller.

        The embedding starts large against these writes: with a small one the stream forgets *which* name a token is
        after the first layer, and the model never learns to repeat a name. The last norm takes the scale out again.
        """
        for name, p in self.named_parameters():
            if p.dim() > 1:
                small = name.endswith(("o.weight", "down", "router.weight"))
                nn.init.normal_(p, std=0.02 if small else 0.05)
        nn.init.normal_(self.embed.weight, std=0.8)
        nn.init.constant_(self.norm.weight, 0.06)

    def forward(self, ids, targets=None):
        """ids [batch][length] -> (logits or losses [batch][length] in nats, balance loss, counts [layers][experts])."""
        x = self.embed(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        balance, counts = 0.0, []
        for layer in self.layers:
            x, b, n = layer(x, cos, sin)
            balance = balance + b / self.c.layers
            counts.append(n)
        logits = F.linear(self.norm(x), self.embed.weight)
        if targets is None:
            return logits, balance, torch.stack(counts)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        return loss, balance, torch.stack(counts)
