#!/usr/bin/env python3
"""Writes transformers/*: tiny random models as transformers builds them, and the logits it computes for them in float64.

These tie vkmoe to the code the models were published with, not to a reading of it. transformers/README.md says what each file
covers. The conversion to GGUF is done here, so names, permutations and expert stacking are checked too; numpy's forward pass
(../tools/moe_forward.py) then has to reproduce transformers' logits from the GGUF file alone.

    pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0 numpy
    tests/golden/make_transformers.py [NAME...] [--out DIR]
"""
import argparse
import contextlib
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")      # the models are tiny
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")       # nothing is fetched

import gguf
import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import moe_forward  # noqa: E402
import moe_model    # noqa: E402

N_TOKENS = 40
N_PREFILL = 20       # the step check evaluates these at once and the others one at a time
MIN_MARGIN = 1e-2    # of router logits; 1e-3 is enough for float32, this leaves room for half precision
N_VOCAB = 266
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=512)


def f32(x):
    """x as a GGUF key can hold it. transformers gets the same number, so that the two differ in nothing."""
    return float(np.float32(x))


# name: (GGUF architecture, transformers class, its config, matrices are stored as). Shared settings: see build().
MODELS = {
    "mixtral": ("llama", "Mixtral", dict(
        hidden_size=64, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, num_local_experts=8,
        num_experts_per_tok=2, rms_norm_eps=f32(1e-5), rope_parameters=dict(rope_type="default", rope_theta=1e6)), np.float16),
    "olmoe": ("olmoe", "Olmoe", dict(
        hidden_size=64, intermediate_size=32, num_attention_heads=4, num_key_value_heads=4, num_experts=12,
        num_experts_per_tok=4, norm_topk_prob=False, rms_norm_eps=f32(1e-5),
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), np.float16),
    "qwen2moe": ("qwen2moe", "Qwen2Moe", dict(
        hidden_size=96, moe_intermediate_size=32, shared_expert_intermediate_size=64, intermediate_size=160,
        num_attention_heads=3, num_key_value_heads=3, num_experts=6, num_experts_per_tok=3, qkv_bias=True, norm_topk_prob=False,
        rms_norm_eps=f32(1e-6), rope_parameters=dict(rope_type="default", rope_theta=1e6)), np.float16),
    "qwen3moe": ("qwen3moe", "Qwen3Moe", dict(
        hidden_size=64, moe_intermediate_size=32, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        num_experts=12, num_experts_per_tok=4, norm_topk_prob=True, rms_norm_eps=f32(1e-6),
        rope_parameters=dict(rope_type="default", rope_theta=1e6)), np.float16),
    "qwen3moe-yarn": ("qwen3moe", "Qwen3Moe", dict(
        hidden_size=64, moe_intermediate_size=32, intermediate_size=160, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
        num_experts=4, num_experts_per_tok=2, norm_topk_prob=True, rms_norm_eps=f32(1e-6), rope_parameters=YARN,
        max_position_embeddings=2048), np.float16),
    "granitemoe": ("granitemoe", "GraniteMoe", dict(
        hidden_size=64, intermediate_size=32, num_attention_heads=4, num_key_value_heads=2, num_local_experts=8,
        num_experts_per_tok=4, embedding_multiplier=12.0, attention_multiplier=0.03125, residual_multiplier=f32(0.22),
        logits_scaling=6.0, tie_word_embeddings=True, rms_norm_eps=f32(1e-6),
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), np.float16),
    "granitemoe-f32": ("granitemoe", "GraniteMoe", dict(
        hidden_size=64, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, num_local_experts=4,
        num_experts_per_tok=2, embedding_multiplier=1.0, attention_multiplier=0.5, residual_multiplier=1.0,
        logits_scaling=f32(0.7), tie_word_embeddings=False, rms_norm_eps=f32(1e-6),
        rope_parameters=dict(rope_type="default", rope_theta=10000.0)), np.float32),
}


@contextlib.contextmanager
def float32_means_float64():
    """transformers computes norms, rotary tables, softmax and the router in float32 whatever the model's type is.

    Inside this context its ways to say so (torch.float32, torch.float, x.float()) mean float64, so that the logits are good to
    float64 and not to float32. make() measures that nothing else changes: without it the difference must be float32 rounding.
    """
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved


def build(name, seed):
    """The model with weights of its own: the default initialisation (0.02 everywhere) would make all experts nearly tied."""
    _, family, settings, _ = MODELS[name]
    common = dict(vocab_size=N_VOCAB, num_hidden_layers=2, max_position_embeddings=64, hidden_act="silu", attention_dropout=0.0,
                  pad_token_id=None, bos_token_id=1, eos_token_id=2)
    config = getattr(transformers, family + "Config")(**common | settings)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = getattr(transformers, family + "ForCausalLM")(config).double().eval()

    rng = np.random.default_rng(seed)  # numpy's, so that another version of torch gives the same weights
    for key, parameter in sorted(model.named_parameters()):
        shape = tuple(parameter.shape)
        value = rng.standard_normal(shape)
        if key.endswith("norm.weight"):
            value = (1 + 0.3 * value).clip(0.2)
        elif key.endswith(".bias"):
            value = 0.3 * value
        elif re.search(r"\.(gate|router)\.weight$", key):
            value *= 2 / np.sqrt(shape[-1])  # router logits with a spread of about 2
        elif key == "model.embed_tokens.weight":
            value *= 0.5 / getattr(config, "embedding_multiplier", 1.0)
        elif key == "lm_head.weight":
            value *= 2 / np.sqrt(shape[-1])
        else:
            value /= np.sqrt(shape[-1])
        parameter.data = torch.from_numpy(value.astype(np.float16).astype(np.float64))
    return model


def run(model, tokens):
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()


def run_in_steps(model, tokens):
    """The first N_PREFILL tokens at once, then one at a time out of the KV cache."""
    rows, cache = [], None
    with torch.no_grad():
        for chunk in [tokens[:N_PREFILL], *([t] for t in tokens[N_PREFILL:])]:
            out = model(input_ids=torch.tensor([chunk]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits[0].numpy())
    return np.concatenate(rows)


# ---------------------------------------------------------------------------------------------------- conversion

def interleave(weight, n_head):
    """Rows of every head from [first half | second half] to alternating: GGUF's llama and granite rotate neighbouring pairs."""
    head = weight.reshape(n_head, 2, weight.shape[0] // n_head // 2, *weight.shape[1:])
    return head.swapaxes(1, 2).reshape(weight.shape)


# transformers' name, what goes into the file. {n}: layer. Each name must match exactly one line.
NAMES = [
    (r"model\.embed_tokens\.weight", "token_embd.weight"),
    (r"model\.norm\.weight", "output_norm.weight"),
    (r"lm_head\.weight", "output.weight"),
    (r"model\.layers\.(\d+)\.input_layernorm\.weight", "blk.{n}.attn_norm.weight"),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.weight", "blk.{n}.ffn_norm.weight"),
    (r"model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", "blk.{n}.attn_{1}.{2}"),
    (r"model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight", "blk.{n}.attn_{1}_norm.weight"),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.weight", "blk.{n}.attn_output.weight"),
    (r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.(?:gate|router)\.weight", "blk.{n}.ffn_gate_inp.weight"),
    (r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.gate_up_proj", "blk.{n}.ffn_gate_up_exps.weight"),
    (r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.down_proj", "blk.{n}.ffn_down_exps.weight"),
    (r"model\.layers\.(\d+)\.mlp\.shared_expert\.(gate|up|down)_proj\.weight", "blk.{n}.ffn_{1}_shexp.weight"),
    (r"model\.layers\.(\d+)\.mlp\.shared_expert_gate\.weight", "blk.{n}.ffn_gate_inp_shexp.weight"),
]


def convert(name, model, path):
    arch, _, _, store = MODELS[name]
    hf = model.config
    head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
    rope = hf.rope_parameters
    granite = arch == "granitemoe"
    w = gguf.GGUFWriter(path, arch)
    w.add_name(f"transformers golden {name}")
    moe_model.write_keys(w, moe_model.Config(
        arch, n_embd=hf.hidden_size, n_layer=hf.num_hidden_layers, n_head=hf.num_attention_heads, n_head_kv=hf.num_key_value_heads,
        head_dim=head_dim, width=getattr(hf, "moe_intermediate_size", None) or hf.intermediate_size,
        n_expert=getattr(hf, "num_experts", None) or hf.num_local_experts, n_used=hf.num_experts_per_tok,
        shared_width=getattr(hf, "shared_expert_intermediate_size", 0), n_vocab=hf.vocab_size, n_ctx=hf.max_position_embeddings,
        eps=hf.rms_norm_eps, rope_base=rope["rope_theta"],
        embedding_scale=hf.embedding_multiplier if granite else 0, residual_scale=hf.residual_multiplier if granite else 0,
        attention_scale=hf.attention_multiplier if granite else 0, logit_scale=hf.logits_scaling if granite else 0))
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    moe_model.write_spm_vocabulary(w, hf.vocab_size)

    def put(tensor, value):
        # Vectors and the router are F32 in practically every file.
        matrix = value.ndim > 1 and "ffn_gate_inp" not in tensor
        stored = np.ascontiguousarray(value.astype(store if matrix else np.float32))
        assert (stored.astype(np.float64) == value).all(), f"{tensor} is not representable"
        w.add_tensor(tensor, stored)

    for key, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        matches = [(m, target) for pattern, target in NAMES if (m := re.fullmatch(pattern, key))]
        if len(matches) != 1:
            raise KeyError(f"{name}: no rule for {key} {value.shape}")
        match, target = matches[0]
        n, rest = (match.groups() or ("",))[0], match.groups()[1:]
        target = target.replace("{n}", n)
        for i, text in enumerate(rest, 1):
            target = target.replace("{%d}" % i, text)
        if arch in ("llama", "granitemoe") and (m := re.search(r"attn_([qk])\.(weight|bias)$", target)):
            value = interleave(value, hf.num_attention_heads if m[1] == "q" else hf.num_key_value_heads)
        if target.endswith("ffn_gate_inp_shexp.weight"):
            value = value.reshape(-1)
        if "gate_up_exps" in target:  # [E][2F][H]: gate's rows first
            half = value.shape[1] // 2
            put(target.replace("gate_up", "gate"), value[:, :half])
            put(target.replace("gate_up", "up"), value[:, half:])
        else:
            put(target, value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


# ---------------------------------------------------------------------------------------------------- one model

def make(name, out):
    nmse = moe_forward.nmse
    path = out / f"{name}.gguf"
    for seed in range(1, 1000):
        with float32_means_float64():
            model = build(name, seed)
            tokens = np.random.default_rng(seed).integers(0, N_VOCAB, N_TOKENS).tolist()
            logits = run(model, tokens)
            steps = run_in_steps(model, tokens)
        convert(name, model, path)
        ours = moe_forward.Model(path).eval(tokens)
        if ours.margins.min() >= MIN_MARGIN:
            break
    plain = run(build(name, seed), tokens)  # the float32 islands left as they are

    assert logits.dtype == np.float64
    report = dict(numpy=nmse(ours.logits, logits), steps=nmse(steps, logits), plain=nmse(plain, logits))
    print(f"{name:15s} seed {seed:3d}, router margin {ours.margins.min():.3f}, logits std {logits.std():.2f}; NMSE: numpy from GGUF "
          f"{report['numpy']:.1e}, steps {report['steps']:.1e}, transformers' own float32 islands {report['plain']:.1e}")
    assert report["numpy"] < 1e-18 and report["steps"] < 1e-24 and report["plain"] < 1e-11, name
    (out / f"{name}.tokens").write_text(" ".join(map(str, tokens)) + "\n")
    np.save(out / f"{name}.logits.npy", logits)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    p.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "transformers")
    args = p.parse_args()
    args.out.mkdir(exist_ok=True)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    for name in args.names or MODELS:
        make(name, args.out)


if __name__ == "__main__":
    main()
