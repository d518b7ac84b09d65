"""Five MoE architectures in float64 numpy, straight from a GGUF file: what `vkmoe logits` should have computed.

Independent of the C code on purpose: nothing here is generated from it or shared with it. Everything is read from the
file (keys, tensor names, tensor types), so it also checks what the scripts next to it write. Weights go through
gguf.dequantize, which works in float32 as ggml does; from there on every number is float64.

    model = Model("x.gguf")
    result = model.eval([1, 2, 3])      # result.logits [n_tokens][n_vocab], result.margins [n_tokens]
"""
import math
from dataclasses import dataclass

import gguf
import numpy as np

# What no key in the file says: how RoPE pairs dimensions, where q and k are normalised, what becomes of the router's logits.
#   neox    pairs (j, j + n_rot/2); otherwise (2j, 2j + 1)
#   qk_norm "row": RMSNorm over the whole projection; "head": over each head
#   router  "softmax": probabilities over all experts, taken as they are for the chosen ones; "renorm": divided by their sum;
#           "select": softmax over the chosen logits only
#   width   the key that holds the width of one expert
ARCHITECTURES = {
    "llama":      dict(neox=False, qk_norm=None,   router="renorm",  width="feed_forward_length"),
    "olmoe":      dict(neox=True,  qk_norm="row",  router="softmax", width="feed_forward_length"),
    "qwen2moe":   dict(neox=True,  qk_norm=None,   router="softmax", width="expert_feed_forward_length"),
    "qwen3moe":   dict(neox=True,  qk_norm="head", router="renorm",  width="expert_feed_forward_length"),
    "granitemoe": dict(neox=False, qk_norm=None,   router="select",  width="feed_forward_length"),
}


@dataclass
class Result:
    logits: np.ndarray   # [n_tokens][n_vocab]
    margins: np.ndarray  # [n_tokens] smallest distance, over the layers, of the last chosen router logit to the first not chosen
    kv: list             # per layer (keys, values), each [n_tokens][n_head_kv][head_dim], of the tokens just evaluated


class Model:
    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        self.weights = {}  # dequantised so far
        self.arch = self.reader.fields["general.architecture"].contents()
        self.rules = ARCHITECTURES[self.arch]

        self.n_layer = self.key("block_count")
        self.n_embd = self.key("embedding_length")
        self.n_head = self.key("attention.head_count")
        self.n_head_kv = self.key("attention.head_count_kv", self.n_head)
        self.head_dim = self.key("attention.key_length", self.n_embd // self.n_head)
        self.eps = self.key("attention.layer_norm_rms_epsilon")
        self.n_expert = self.key("expert_count")
        self.n_used = self.key("expert_used_count")
        self.width = self.key(self.rules["width"])

        # Granite's multipliers. Absent or zero is "none", as llama.cpp reads them; logits are divided.
        self.embedding_scale = self.key("embedding_scale", 0) or 1.0
        self.residual_scale = self.key("residual_scale", 0) or 1.0
        self.logit_scale = self.key("logit_scale", 0) or 1.0
        self.attention_scale = self.key("attention.scale", 0) or 1.0 / math.sqrt(self.head_dim)

        self.n_rot = self.key("rope.dimension_count", self.head_dim)
        self.rope_frequency, self.rope_magnitude = self.rope_table()
        self.n_vocab = self.tensors["token_embd.weight"].shape[1]

    def key(self, name, default=None):
        """A key of the architecture. Absent without a default is an error, and so says the exception."""
        field = self.reader.fields.get(f"{self.arch}.{name}")
        if field is None:
            if default is None:
                raise KeyError(f"{self.arch}.{name}")
            return default
        return field.contents()

    # ------------------------------------------------------------------------------------------------ weights

    def weight(self, name):
        """Tensor `name` in float64, in PyTorch's axis order (the reverse of the file's), or None if there is none."""
        if name not in self.weights:
            tensor = self.tensors.get(name)
            if tensor is None:
                return None
            shape = [int(n) for n in reversed(tensor.shape)]
            self.weights[name] = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float64)
        return self.weights[name]

    def expert(self, layer, e):
        """(gate [F][H], up [F][H], down [H][F]) of one expert, in whichever of the three ways the file stores them."""
        b = f"blk.{layer}."
        if (fused := self.weight(b + "ffn_gate_up_exps.weight")) is not None:
            return fused[e, :self.width], fused[e, self.width:], self.weight(b + "ffn_down_exps.weight")[e]
        if (gate := self.weight(b + "ffn_gate_exps.weight")) is not None:
            return gate[e], self.weight(b + "ffn_up_exps.weight")[e], self.weight(b + "ffn_down_exps.weight")[e]
        return tuple(self.weight(f"{b}ffn_{part}.{e}.weight") for part in ("gate", "up", "down"))

    def linear(self, x, name):
        """x [n][in] -> [n][out], with the bias if the file has one."""
        y = x @ self.weight(name + ".weight").T
        bias = self.weight(name + ".bias")
        return y if bias is None else y + bias

    # ------------------------------------------------------------------------------------------------ parts

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weight(name + ".weight")

    def rope_table(self):
        """Angle per position of each pair [n_rot/2], and the factor on cos and sin."""
        j = np.arange(self.n_rot // 2)
        base = self.key("rope.freq_base", 10000.0)
        frequency = base ** (-2.0 * j / self.n_rot)
        if (factors := self.weight("rope_freqs.weight")) is not None:
            frequency = frequency / factors

        factor = self.key("rope.scaling.factor", self.key("rope.scale_linear", 0)) or 1.0  # the second name is the old one
        kind = self.key("rope.scaling.type", "linear")
        magnitude = self.key("rope.scaling.attn_factor", 1.0)
        if kind == "linear":
            frequency = frequency / factor
        elif kind == "yarn":
            # Pairs that turn often within the original context keep their frequency, pairs that turn rarely are slowed down
            # by the factor, and those between are mixed. The ramp's ends are rounded outwards, as ggml does.
            original = self.key("rope.scaling.original_context_length", self.key("context_length"))
            pair_of = lambda turns: self.n_rot * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
            low = max(math.floor(pair_of(self.key("rope.scaling.yarn_beta_fast", 32.0))), 0)
            high = min(math.ceil(pair_of(self.key("rope.scaling.yarn_beta_slow", 1.0))), self.n_rot - 1)
            ramp = np.clip((j - low) / max(0.001, high - low), 0, 1)
            frequency = frequency * (1 - ramp) + frequency / factor * ramp
            magnitude *= 0.1 * math.log(factor) + 1.0
        return frequency, magnitude

    def rope(self, x, position):
        """x [n][heads][head_dim] turned to position [n]. Dimensions beyond n_rot stay as they are."""
        angle = position[:, None, None] * self.rope_frequency
        cos, sin = np.cos(angle) * self.rope_magnitude, np.sin(angle) * self.rope_magnitude
        half = self.n_rot // 2
        first, second = ((slice(0, half), slice(half, self.n_rot)) if self.rules["neox"] else
                         (slice(0, self.n_rot, 2), slice(1, self.n_rot, 2)))
        y = x.copy()
        y[..., first] = x[..., first] * cos - x[..., second] * sin
        y[..., second] = x[..., first] * sin + x[..., second] * cos
        return y

    def attention(self, x, layer, past, position, visible):
        """x [n][H] -> the branch's output and the new (keys, values). visible [n][n_past + n] says which keys a query sees."""
        b, n = f"blk.{layer}.", len(x)
        q, k, v = (self.linear(x, b + "attn_" + s) for s in "qkv")
        if self.rules["qk_norm"] == "row":
            q, k = self.norm(q, b + "attn_q_norm"), self.norm(k, b + "attn_k_norm")
        q, k, v = (y.reshape(n, -1, self.head_dim) for y in (q, k, v))
        if self.rules["qk_norm"] == "head":
            q, k = self.norm(q, b + "attn_q_norm"), self.norm(k, b + "attn_k_norm")
        q, k = self.rope(q, position), self.rope(k, position)

        keys, values = np.concatenate([past[0], k]), np.concatenate([past[1], v])
        out = np.empty_like(q)
        for h in range(self.n_head):
            group = h // (self.n_head // self.n_head_kv)
            score = np.where(visible, self.attention_scale * (q[:, h] @ keys[:, group].T), -np.inf)
            out[:, h] = softmax(score) @ values[:, group]
        return self.linear(out.reshape(n, -1), b + "attn_output"), (k, v)

    def route(self, x, layer):
        """Chosen experts [n][k], their weights [n][k] and the margin of the choice [n]. The lowest index wins a tie."""
        z = x @ self.weight(f"blk.{layer}.ffn_gate_inp.weight").T
        order = np.argsort(-z, axis=-1, kind="stable")
        chosen = order[:, :self.n_used]
        picked = np.take_along_axis(z, order, -1)
        margin = (picked[:, self.n_used - 1] - picked[:, self.n_used] if self.n_used < self.n_expert else
                  np.full(len(x), np.inf))

        if self.rules["router"] == "select":
            return chosen, softmax(picked[:, :self.n_used]), margin
        weight = np.take_along_axis(softmax(z), chosen, -1)
        if self.rules["router"] == "renorm":
            weight = weight / weight.sum(-1, keepdims=True)
        return chosen, weight, margin

    def experts(self, x, layer):
        b = f"blk.{layer}."
        chosen, weight, margin = self.route(x, layer)
        y = np.zeros_like(x)
        for e in np.unique(chosen):
            token, slot = np.nonzero(chosen == e)
            gate, up, down = self.expert(layer, e)
            h = silu(x[token] @ gate.T) * (x[token] @ up.T)
            y[token] += weight[token, slot, None] * (h @ down.T)  # a token chooses an expert once, so no index repeats

        if b + "ffn_up_shexp.weight" in self.tensors:
            shared = self.linear(silu(self.linear(x, b + "ffn_gate_shexp")) * self.linear(x, b + "ffn_up_shexp"), b + "ffn_down_shexp")
            if (gate := self.weight(b + "ffn_gate_inp_shexp.weight")) is not None:
                shared *= sigmoid(x @ gate.reshape(-1))[:, None]
            y += shared
        return y, margin

    # ------------------------------------------------------------------------------------------------ the whole

    def empty_cache(self):
        nothing = np.zeros((0, self.n_head_kv, self.head_dim))
        return [(nothing, nothing) for _ in range(self.n_layer)]

    def eval(self, tokens, cache=None, siblings=False):
        """Logits of `tokens` after what `cache` holds. The cache itself is not changed, see extend().

        siblings: the tokens are not a sequence but alternatives for the one next position, blind to each other.
        """
        tokens = np.asarray(tokens)
        cache = cache or self.empty_cache()
        n, n_past = len(tokens), len(cache[0][0])
        position = np.full(n, n_past) if siblings else n_past + np.arange(n)
        among = np.eye(n, dtype=bool) if siblings else np.tri(n, dtype=bool)
        visible = np.concatenate([np.ones((n, n_past), bool), among], axis=1)

        x = self.weight("token_embd.weight")[tokens] * self.embedding_scale
        margins, kv = np.full(n, np.inf), []
        for layer in range(self.n_layer):
            b = f"blk.{layer}."
            branch, new = self.attention(self.norm(x, b + "attn_norm"), layer, cache[layer], position, visible)
            x = x + self.residual_scale * branch
            branch, margin = self.experts(self.norm(x, b + "ffn_norm"), layer)
            x = x + self.residual_scale * branch
            margins = np.minimum(margins, margin)
            kv.append(new)
        x = self.norm(x, "output_norm")
        output = self.weight("output.weight")
        if output is None:  # tied
            output = self.weight("token_embd.weight")
        return Result(x @ output.T / self.logit_scale, margins, kv)

    @staticmethod
    def extend(cache, kv, rows=slice(None)):
        """The cache with `rows` of an eval's keys and values appended."""
        return [(np.concatenate([k, new_k[rows]]), np.concatenate([v, new_v[rows]]))
                for (k, v), (new_k, new_v) in zip(cache, kv)]


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # 1 / (1 + exp(-x)) without its overflow


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def nmse(found, expected):
    """Mean squared error over mean square. Not finite anywhere, or another shape: infinite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return math.inf
    return float(((found.astype(np.float64) - expected) ** 2).mean() / (expected ** 2).mean())


def pick_tokens(model, n, rng, margin, tries=8):
    """A random prompt of n tokens on which no router choice is a near tie, as far as `tries` candidates a position allow.

    Rounding may legitimately turn a near tie the other way, and a turned tie costs as much as a bug. Searching for a seed
    without one is hopeless for a long prompt (layers x tokens chances), choosing each token in turn is not. To be quick about
    it, a run of tokens is tried at once and kept up to the first near tie, where the best of several tokens is taken.
    """
    cache, tokens, run = model.empty_cache(), [], 8
    while len(tokens) < n:
        guess = rng.integers(0, model.n_vocab, min(run, n - len(tokens)))
        result = model.eval(guess, cache)
        near = np.flatnonzero(result.margins < margin)
        kept = int(near[0]) if len(near) else len(guess)
        tokens += guess[:kept].tolist()
        cache = model.extend(cache, result.kv, slice(kept))
        if kept < len(guess):
            candidates = rng.choice(model.n_vocab, tries, replace=False)
            result = model.eval(candidates, cache, siblings=True)
            wide = np.flatnonzero(result.margins >= margin)
            best = wide[0] if len(wide) else int(np.argmax(result.margins))
            tokens.append(int(candidates[best]))
            cache = model.extend(cache, result.kv, [best])
        run = min(2 * kept + 1, 64)
    return tokens
