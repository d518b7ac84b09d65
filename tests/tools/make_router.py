#!/usr/bin/env python3
"""Writes golden/router/*.bin: what the routers of published models, as transformers has them, make of random logits.

Each router's matrix is the identity, so that its input is its logits. Values are multiples of 2^-10, so that sums with biases are
exact in float32. A file is, little endian: u32 n, experts, extra words, 0; f32 logits [n][experts]; extra words; f64 weight of each
expert for each token [n][experts] (0: not chosen); f64 load-balance loss and z-loss (NaN: the model has none).
Extra words: f32 selection bias or expert scale [experts]; for hash routing u32 token ids [n], then the table [n_table][k].
Tests name the rule of each file: ../test_router.c.

    pip install torch==2.13.0 transformers==5.24.0 numpy
    tests/tools/make_router.py
"""
import importlib
import os
import struct
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

OUT = Path(__file__).resolve().parent.parent / "golden" / "router"
N = 24


def module(family):
    return importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def grid(rng, *shape, sd=2.0):
    return torch.tensor(np.round(rng.normal(0, sd, shape) * 1024) / 1024, dtype=torch.float64)


def save(name, logits, dense, extra=b"", losses=(np.nan, np.nan)):
    n, experts = logits.shape
    assert dense.shape == (n, experts) and np.isfinite(dense).all()
    with open(OUT / f"{name}.bin", "wb") as f:
        f.write(struct.pack("<4I", n, experts, len(extra) // 4, 0))
        f.write(np.asarray(logits, dtype="<f4").tobytes() + extra + np.asarray(dense, dtype="<f8").tobytes() + np.asarray(losses, dtype="<f8").tobytes())


def scatter(experts, index, weights):
    return torch.zeros(index.shape[0], experts, dtype=torch.float64).scatter_(1, index, weights.double()).numpy()


def words(x):
    return np.asarray(x, dtype="<f4").tobytes()


def config(experts, k, **more):
    """Under every name that these routers read."""
    return SimpleNamespace(**{**dict(hidden_size=experts, num_experts=experts, num_local_experts=experts, n_routed_experts=experts, num_experts_per_tok=k, top_k_experts=k, router_jitter_noise=0.01,
                                     input_jitter_noise=0.0, norm_topk_prob=False, routed_scaling_factor=1.0, n_group=1, topk_group=1, topk_method="greedy", moe_norm_min=1e-12, rms_norm_eps=1e-6,
                                     scoring_func="sqrtsoftplus", use_expert_bias=True, vocab_size=50, router_bias=False, router_dtype="float64", expert_capacity=None, router_ignore_padding_tokens=False), **more})


def identity(router, experts):
    router = router.double().eval()
    with torch.no_grad():
        (router.weight if hasattr(router, "weight") else router.proj.weight if hasattr(router, "proj") else router.classifier.weight).copy_(torch.eye(experts))
    return router


def chosen(name, family, cls, experts, k, x, before=None, extra=b"", args=(), losses=None, **more):
    """A router that returns (logits, weights [n][k], ids [n][k])."""
    router = identity(getattr(module(family), cls)(config(experts, k, **more)), experts)
    if before:
        with torch.no_grad():
            before(router)
    logits, weights, index = router(x, *args)
    save(name, logits.numpy(), scatter(experts, index, weights), extra, losses(logits) if losses else (np.nan, np.nan))


def set_(attribute, value):
    def before(router):
        owner, _, leaf = attribute.rpartition(".")
        getattr(router.get_submodule(owner) if owner else router, leaf).copy_(value)
    return before


@torch.no_grad()
def main():
    torch.set_default_dtype(torch.float64)
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)

    def mixtral_losses(logits):
        switch = module("switch_transformers")
        return (module("mixtral").load_balancing_loss_func((logits,), 8, 2).item() / 2, float(switch.router_z_loss_func(logits[None])))

    chosen("mixtral", "mixtral", "MixtralTopKRouter", 8, 2, grid(rng, N, 8), losses=mixtral_losses)
    chosen("olmoe", "olmoe", "OlmoeTopKRouter", 12, 4, grid(rng, N, 12))
    chosen("granitemoe", "granitemoe", "GraniteMoeTopKRouter", 12, 4, grid(rng, N, 12))
    chosen("gpt_oss", "gpt_oss", "GptOssTopKRouter", 16, 4, grid(rng, N, 16), before=set_("bias", grid(rng, 16, sd=0.5)))
    chosen("deepseek_v2", "deepseek_v2", "DeepseekV2TopkRouter", 16, 3, grid(rng, N, 16), n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0)
    bias = grid(rng, 16, sd=0.2)
    chosen("deepseek_v3", "deepseek_v3", "DeepseekV3TopkRouter", 16, 4, grid(rng, N, 16), set_("e_score_correction_bias", bias.abs()), words(bias.abs()), n_group=4, topk_group=2, norm_topk_prob=True,
           routed_scaling_factor=2.5)
    chosen("glm4_moe", "glm4_moe", "Glm4MoeTopkRouter", 16, 4, grid(rng, N, 16), set_("e_score_correction_bias", bias.abs()), words(bias.abs()), norm_topk_prob=True)
    chosen("ernie4_5", "ernie4_5_moe", "Ernie4_5_MoeTopKRouter", 16, 3, grid(rng, N, 16), set_("moe_statics.e_score_correction_bias", bias[None]), words(bias))
    chosen("lfm2_moe", "lfm2_moe", "Lfm2MoeTopKRouter", 16, 4, grid(rng, N, 16), extra=words(bias), args=(bias,), norm_topk_prob=True)
    near = torch.round((3 + grid(rng, N, 16, sd=0.1)) * 1024) / 1024      # logits within a few percent of each other: that is where the rule matters
    chosen("phimoe", "phimoe", "PhimoeTopKRouter", 16, 2, near)
    chosen("phimoe_wide", "phimoe", "PhimoeTopKRouter", 16, 2, grid(rng, N, 16) - 3)
    chosen("deepseek_v4", "deepseek_v4", "DeepseekV4TopKRouter", 16, 3, grid(rng, N, 16, sd=3), set_("e_score_correction_bias", bias), words(bias), routed_scaling_factor=1.5)
    tokens, table = rng.integers(0, 50, N), np.array([rng.permutation(16)[:3] for _ in range(50)])
    chosen("deepseek_v4_hash", "deepseek_v4", "DeepseekV4HashRouter", 16, 3, grid(rng, N, 16), set_("tid2eid", torch.tensor(table)), tokens.astype("<u4").tobytes() + table.astype("<u4").tobytes(),
           args=(torch.tensor(tokens),), routed_scaling_factor=1.5)

    router = identity(module("gemma4").Gemma4TextRouter(config(16, 4)), 16)
    scale = 1 + grid(rng, 16, sd=0.2)
    router.per_expert_scale.copy_(scale)
    router.scale.copy_(torch.full((16,), 6.0))
    seen = []
    router.proj.register_forward_hook(lambda m, i, o: seen.append(o.float().double()))
    _, weights, index = router(grid(rng, N, 16))
    save("gemma4", seen[0].numpy(), scatter(16, index, weights), words(scale))

    for name, k in (("llama4", 1), ("llama4_top2", 2)):
        router = identity(module("llama4").Llama4Router(config(16, k)), 16)
        x = grid(rng, N, 16)
        scores, logits = router(x)
        save(name, logits.numpy(), scores.double().numpy())

    x = grid(rng, N, 4, sd=1)
    router = identity(module("switch_transformers").SwitchTransformersTop1Router(config(4, 1, expert_capacity=4, router_jitter_noise=0.0)), 4)
    mask, p, logits = router(x[None])
    save("switch", logits[0].numpy(), (mask * p)[0].numpy(), losses=(np.nan, float(module("switch_transformers").router_z_loss_func(logits))))

    for name, first, prioritised in (("nllb", False, False), ("nllb_before", True, False), ("nllb_prioritised", False, True), ("nllb_before_prioritised", True, True)):
        router = identity(module("nllb_moe").NllbMoeTop2Router(config(6, 2, second_expert_policy="all", normalize_router_prob_before_dropping=first, batch_prioritized_routing=prioritised,
                                                                        moe_eval_capacity_token_fraction=0.25)), 6)
        logits = grid(rng, N, 6, sd=1.5)
        _, weights = router.route_tokens(logits, torch.float64)
        save(name, logits.numpy(), weights.numpy())
    print(sum(f.stat().st_size for f in OUT.iterdir()), "bytes")


main()
