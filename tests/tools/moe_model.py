"""Random models of five MoE architectures as GGUF files: shapes, variants, keys, tensors, vocabularies.

Used by oracle_table.py (small models of every type), make_big.py (true shapes, random blocks) and ../golden/make_transformers.py
(keys and vocabulary only).
"""
import math
import zlib
from dataclasses import dataclass, replace

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from random_blocks import TYPES, random_blocks, random_tensor, usable_type

ARCHS = ("llama", "olmoe", "qwen2moe", "qwen3moe", "granitemoe")


@dataclass(frozen=True)
class Config:
    arch: str
    n_embd: int = 256
    n_layer: int = 3
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    width: int = 256           # of one expert
    n_expert: int = 8
    n_used: int = 2
    shared_width: int = 0      # of the shared expert, 0: none
    n_vocab: int = 269         # not a multiple of anything
    n_ctx: int = 512
    eps: float = 1e-5
    rope_base: float = 10000.0
    n_rot: int = 0             # 0: head_dim
    tied: bool = False
    embedding_scale: float = 0.0   # these four: granitemoe, 0: no key
    residual_scale: float = 0.0
    attention_scale: float = 0.0
    logit_scale: float = 0.0
    # Ways to write the same model down, and options that files have.
    fused: bool = False        # ffn_gate_up_exps
    per_expert: bool = False   # very old files: one tensor per expert
    f16_router: bool = False   # very old files again
    rope_scaling: str = ""     # "linear" | "yarn" | "yarn_keys" (with every optional key) | "freqs" (a tensor of factors)
    mixed: bool = False        # every tensor of a random type


# What sets the architectures apart; sizes come on top.
BASE = {
    "llama": Config("llama"),
    "olmoe": Config("olmoe"),                     # every query head has its own keys, see small_config
    "qwen2moe": Config("qwen2moe", eps=1e-6, rope_base=1e6),
    "qwen3moe": Config("qwen3moe", eps=1e-6, rope_base=1e6),
    "granitemoe": Config("granitemoe", eps=1e-6, tied=True, embedding_scale=12.0, residual_scale=0.22, attention_scale=0.03125,
                         logit_scale=6.0),
}

# --size of oracle_table.py. Widths that are not a multiple of 256 make K-quants fall back, as in real files.
SIZES = {
    "small":    dict(),
    "wide96":   dict(n_embd=96, width=96, n_head=4, head_dim=24),
    "wide960":  dict(n_embd=960, width=960, n_head=15, n_head_kv=5, n_expert=4, n_layer=2),
    "wide1408": dict(n_embd=1408, width=1408, n_head=22, n_head_kv=2, n_expert=4, n_layer=1),
    "e60":      dict(n_expert=60, n_used=4, width=128, n_layer=2),
    "e128":     dict(n_expert=128, n_used=8, width=64, n_layer=2),
    "e512":     dict(n_expert=512, n_used=10, width=64, n_layer=1),
    "hd48":     dict(n_embd=288, n_head=6, n_head_kv=6, head_dim=48),   # stories15M_MOE: head size not a power of two
    "hd128":    dict(n_embd=512, n_head=4, n_head_kv=1, head_dim=128, width=512),
}

# --variant of oracle_table.py: what each adds, and to which architectures (None: all).
VARIANTS = {
    "mixed":      (None, dict(mixed=True)),
    "fused":      (None, dict(fused=True)),
    "per_expert": (None, dict(per_expert=True)),
    "f16_router": (None, dict(f16_router=True)),
    "tied":       (None, dict(tied=True)),
    "partial":    (None, dict(n_rot=-2)),                             # half of the head, see small_config
    "linear":     (None, dict(rope_scaling="linear")),
    "yarn":       (None, dict(rope_scaling="yarn", n_ctx=2048)),
    "yarn_keys":  (None, dict(rope_scaling="yarn_keys", n_ctx=2048)),
    "freqs":      (("llama",), dict(rope_scaling="freqs")),
    "residual1":  (("granitemoe",), dict(residual_scale=1.0)),        # 0.22 hides mistakes in attention
    "shared":     (("granitemoe",), dict(shared_width=192)),          # the ungated shared MLP of some Granite files
}


def small_config(arch, size="small", variants=()):
    config = replace(BASE[arch], **SIZES[size])
    if arch == "olmoe":
        config = replace(config, n_head_kv=config.n_head)
    if arch == "qwen2moe":
        config = replace(config, shared_width=2 * config.width)
    if arch == "qwen3moe" and size in ("small", "hd128"):
        config = replace(config, n_head=2 * config.n_head)  # as in Qwen3, heads do not add up to the hidden size
    for variant in variants:
        only, changes = VARIANTS[variant]
        if only and arch not in only:
            raise ValueError(f"variant {variant} is for {', '.join(only)}, not {arch}")
        config = replace(config, **changes)
    if config.n_rot < 0:
        config = replace(config, n_rot=config.head_dim // -config.n_rot)
    return config


# ---------------------------------------------------------------------------------------------------- keys

def write_keys(w, c):
    """The architecture's keys, under the names and in the company that llama.cpp's converter writes them."""
    w.add_context_length(c.n_ctx)
    w.add_embedding_length(c.n_embd)
    w.add_block_count(c.n_layer)
    w.add_vocab_size(c.n_vocab)
    w.add_head_count(c.n_head)
    w.add_head_count_kv(c.n_head_kv)
    w.add_layer_norm_rms_eps(c.eps)
    w.add_rope_freq_base(c.rope_base)
    w.add_rope_dimension_count(c.n_rot or c.head_dim)
    w.add_expert_count(c.n_expert)
    w.add_expert_used_count(c.n_used)
    if c.arch == "qwen3moe" or c.n_head * c.head_dim != c.n_embd:
        w.add_key_length(c.head_dim)
        w.add_value_length(c.head_dim)

    if c.arch in ("qwen2moe", "qwen3moe"):
        w.add_feed_forward_length(3 * c.width)  # of dense layers, of which there are none: must not be mistaken for the experts'
        w.add_expert_feed_forward_length(c.width)
    else:
        w.add_feed_forward_length(c.width)
    if c.shared_width:
        w.add_expert_shared_feed_forward_length(c.shared_width)

    if c.embedding_scale:
        w.add_embedding_scale(c.embedding_scale)
    if c.residual_scale:
        w.add_residual_scale(c.residual_scale)
    if c.attention_scale:
        w.add_attention_scale(c.attention_scale)
    if c.logit_scale:
        w.add_logit_scale(c.logit_scale)

    if c.rope_scaling == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(4.0)
    elif c.rope_scaling.startswith("yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(4.0)
        w.add_rope_scaling_orig_ctx_len(512)
        if c.rope_scaling == "yarn_keys":
            # llama.cpp reads the factor, and the betas for other architectures only. transformers honours both, and so do we.
            w.add_rope_scaling_attn_factors(1.125)
            w.add_rope_scaling_yarn_beta_fast(16.0)
            w.add_rope_scaling_yarn_beta_slow(2.0)


# ---------------------------------------------------------------------------------------------------- tensors

def tensor_list(c):
    """Every tensor of the model, in file order: (name, shape in PyTorch's order, spread). Spread None: numbers around 1.

    Spreads keep activations near 1, and router logits far enough apart (about 2) that choices are clear.
    """
    h, q, kv = c.n_embd, c.n_head * c.head_dim, c.n_head_kv * c.head_dim
    by = lambda n: 1.0 / math.sqrt(n)
    yield "token_embd.weight", (c.n_vocab, h), 1.0 / (c.embedding_scale or 2.0)
    yield "output_norm.weight", (h,), None
    if not c.tied:
        yield "output.weight", (c.n_vocab, h), 2.0 * by(h)
    if c.rope_scaling == "freqs":
        yield "rope_freqs.weight", ((c.n_rot or c.head_dim) // 2,), None
    for layer in range(c.n_layer):
        b = f"blk.{layer}."
        yield b + "attn_norm.weight", (h,), None
        yield b + "attn_q.weight", (q, h), by(h)
        yield b + "attn_k.weight", (kv, h), by(h)
        yield b + "attn_v.weight", (kv, h), by(h)
        yield b + "attn_output.weight", (h, q), by(q)
        if c.arch == "qwen2moe":
            for part, n in (("q", q), ("k", kv), ("v", kv)):
                yield f"{b}attn_{part}.bias", (n,), 0.3
        if c.arch == "olmoe":
            yield b + "attn_q_norm.weight", (q,), None
            yield b + "attn_k_norm.weight", (kv,), None
        if c.arch == "qwen3moe":
            yield b + "attn_q_norm.weight", (c.head_dim,), None
            yield b + "attn_k_norm.weight", (c.head_dim,), None

        yield b + "ffn_norm.weight", (h,), None
        yield b + "ffn_gate_inp.weight", (c.n_expert, h), 2.0 * by(h)
        if c.per_expert:
            for e in range(c.n_expert):
                yield f"{b}ffn_gate.{e}.weight", (c.width, h), by(h)
                yield f"{b}ffn_up.{e}.weight", (c.width, h), by(h)
                yield f"{b}ffn_down.{e}.weight", (h, c.width), by(c.width)
        else:
            if c.fused:
                yield b + "ffn_gate_up_exps.weight", (c.n_expert, 2 * c.width, h), by(h)
            else:
                yield b + "ffn_gate_exps.weight", (c.n_expert, c.width, h), by(h)
                yield b + "ffn_up_exps.weight", (c.n_expert, c.width, h), by(h)
            yield b + "ffn_down_exps.weight", (c.n_expert, h, c.width), by(c.width)
        if c.shared_width:
            yield b + "ffn_gate_shexp.weight", (c.shared_width, h), by(h)
            yield b + "ffn_up_shexp.weight", (c.shared_width, h), by(h)
            yield b + "ffn_down_shexp.weight", (h, c.shared_width), by(c.shared_width)
            if c.arch == "qwen2moe":
                yield b + "ffn_gate_inp_shexp.weight", (h,), by(h)


def tensor_type(c, name, shape, wanted, rng):
    """llama-quantize's rule: vectors, norms and the router stay F32; rows that are not whole blocks get another type."""
    if "ffn_gate_inp.weight" in name:
        return Type.F16 if c.f16_router else Type.F32
    if len(shape) == 1:
        return Type.F32
    return usable_type(TYPES[rng.integers(len(TYPES))] if c.mixed else wanted, shape[-1])


def write_random(path, c, wanted, seed):
    """A random model of `wanted` type. The same arguments give the same file."""
    rng = np.random.default_rng([seed, zlib.crc32(repr((c, wanted.name)).encode())])
    w = gguf.GGUFWriter(path, c.arch)
    w.add_name(f"random {c.arch} {wanted.name} seed {seed}")
    write_keys(w, c)
    write_spm_vocabulary(w, c.n_vocab)
    for name, shape, spread in tensor_list(c):
        kind = tensor_type(c, name, shape, wanted, rng)
        if spread is None:
            w.add_tensor(name, (1.0 + 0.3 * rng.standard_normal(shape)).clip(0.2).astype(np.float32))
        else:
            w.add_tensor(name, random_tensor(rng, shape, spread, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def stream_random(path, c, type_of, vocabulary, seed, progress=None):
    """A random model of any size holding one tensor at a time. type_of(name, shape) names the type of each matrix."""
    rng = np.random.default_rng(seed)
    plan = []
    w = gguf.GGUFWriter(path, c.arch)
    w.add_name(f"random {c.arch} {c.n_layer} layers")
    w.add_quantization_version(2)
    write_keys(w, c)
    vocabulary(w, c.n_vocab)
    for name, shape, spread in tensor_list(c):
        kind = tensor_type(c, name, shape, type_of(name, shape), rng)
        plan.append((name, shape, spread, kind))
        if kind in (Type.F32, Type.F16):
            dtype = np.dtype(np.float32 if kind == Type.F32 else np.float16)
            w.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
        else:
            rows = gguf.quant_shape_to_byte_shape(shape, kind)
            w.add_tensor_info(name, rows, np.dtype(np.uint8), int(np.prod(rows)), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for i, (name, shape, spread, kind) in enumerate(plan):
        if spread is None:
            w.write_tensor_data((1.0 + 0.1 * rng.standard_normal(shape)).astype(np.float32))
        elif kind in (Type.F32, Type.F16, Type.BF16):
            w.write_tensor_data(random_tensor(rng, shape, spread, kind))
        else:
            w.write_tensor_data(random_blocks(rng, shape, spread, kind))
        if progress:
            progress(i + 1, len(plan), name)
    w.close()
    return plan


# ---------------------------------------------------------------------------------------------------- vocabularies

def write_spm_vocabulary(w, n):
    """SentencePiece style, enough to tokenise anything: three control tokens, 256 bytes, then made-up pieces up to n tokens."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["▁"]
    kinds = [2, 3, 3] + [6] * 256 + [1]  # unknown, control, byte, normal
    tokens += word_pieces(n - len(tokens), space="▁", taken=tokens)
    kinds += [1] * (n - len(kinds))
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens[:n])
    w.add_token_scores([-float(max(i - 258, 0)) for i in range(n)])
    w.add_token_types(kinds[:n])
    w.add_unk_token_id(0)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)


def write_bpe_vocabulary(pre, special):
    """GPT-2 style: 256 bytes, pairs of letters with their merges, made-up words, and `special` {id: text} control tokens.

    special's keys "eos", "bos" and "pad" are names for ids.
    """
    names = {key: value for key, value in special.items() if isinstance(key, str)}
    control = {key: value for key, value in special.items() if not isinstance(key, str)}

    def write(w, n):
        tokens = list(gpt2_bytes())
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        pairs = ["Ġ" + a for a in letters] + [a + b for a in letters for b in letters]
        merges = [f"{p[0]} {p[1]}" for p in pairs]
        tokens += pairs
        tokens += word_pieces(n - len(tokens), space="Ġ", taken=tokens)
        kinds = [1] * n
        for i, text in control.items():
            tokens[i], kinds[i] = text, 3
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(kinds)
        w.add_token_merges(merges)
        for name, i in names.items():
            getattr(w, f"add_{name}_token_id")(i)
        w.add_add_bos_token(False)
    return write


def gpt2_bytes():
    """The 256 characters that stand for bytes: printable ones for themselves, the others from U+0100 on."""
    plain = set(range(ord("!"), ord("~") + 1)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def word_pieces(n, space, taken):
    """n distinct pronounceable pieces, none of them in `taken`."""
    taken, pieces, i = set(taken), [], 0
    consonants, vowels = "tnshrdlcmfwpvbgk", "eaoiu"
    while len(pieces) < n:
        word, rest = "", i
        while True:
            rest, c = divmod(rest, len(consonants) * len(vowels))
            word = consonants[c % len(consonants)] + vowels[c // len(consonants)] + word
            if rest == 0:
                break
            rest -= 1
        for piece in (word, space + word):
            if piece not in taken:
                taken.add(piece)
                pieces.append(piece)
        i += 1
    return pieces[:max(n, 0)]
