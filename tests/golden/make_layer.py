#!/usr/bin/env python3
"""Writes layer/*.gguf: whole MoE blocks as transformers has them, at tiny sizes with random weights, and what they make of some tokens in float64.

A file holds the block's weights as GGUF lays them out (experts [E][rows][columns], gate and up apart), x and y, and keys that say which router and which experts it is
in the numbers of src/vkmoe.h (enums vkm_router_..., vkm_activation). tests/test_layer.c reads them.

    pip install torch==2.13.0 transformers==5.24.0 gguf==0.19.0 numpy
    tests/golden/make_layer.py [NAME...] [--out DIR]
"""
import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")       # nothing is fetched

import gguf
import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_transformers import f32, float32_means_float64  # noqa: E402

H, F, E, N = 24, 16, 8, 12       # hidden, expert width, experts, tokens
TOP_K, FORCED = 0, 3             # vkm_router_select
SOFTMAX, SELECTED, SIGMOID, SPARSEMIXER = 0, 1, 2, 5
SILU, GELU_TANH, GELU_ERF, RELU, RELU2 = range(5)


def models(family):
    return getattr(getattr(transformers.models, family), "modeling_" + family)


def make(block, rng, stronger=1.0):
    """Random weights, of which files in f16 hold the very numbers."""
    block = block.double().eval()
    for name, p in sorted(list(block.named_parameters()) + list(block.named_buffers())):
        value = rng.standard_normal(tuple(p.shape))
        if "bias" in name:
            value *= 0.3
        elif "gate_up_proj" in name and p.dim() == 3 and p.shape[1] == H or "down_proj" in name and p.dim() == 3 and p.shape[1] == F:
            value *= stronger / np.sqrt(p.shape[1])          # stored transposed
        elif name in ("gate.weight", "router.weight", "router.classifier.weight", "shared_expert_gate.weight"):
            value *= 2 / np.sqrt(p.shape[-1])
        else:
            value *= stronger / np.sqrt(p.shape[-1])
        p.data = torch.from_numpy(value.astype(np.float16).astype(np.float64))
    return block


def halves(gate_up):                                          # [E, 2F, H]
    return dict(gate=gate_up[:, :F], up=gate_up[:, F:])


def shared(mlp, names=("gate_proj", "up_proj", "down_proj")):
    return {"shared_" + part: getattr(mlp, name).weight for part, name in zip(("gate", "up", "down"), names) if hasattr(mlp, name)}


def mixtral(rng):
    c = transformers.MixtralConfig(hidden_size=H, intermediate_size=F, num_local_experts=E, num_experts_per_tok=2, hidden_act="silu")
    b = make(models("mixtral").MixtralSparseMoeBlock(c), rng)
    return b, dict(score=SOFTMAX, n_used=2, renormalise=1), dict(router=b.gate.weight, **halves(b.experts.gate_up_proj), down=b.experts.down_proj)


def qwen2moe(rng):
    c = transformers.Qwen2MoeConfig(hidden_size=H, moe_intermediate_size=F, shared_expert_intermediate_size=40, num_experts=E, num_experts_per_tok=3, norm_topk_prob=False, hidden_act="silu")
    b = make(models("qwen2_moe").Qwen2MoeSparseMoeBlock(c), rng)
    return b, dict(score=SOFTMAX, n_used=3), dict(router=b.gate.weight, **halves(b.experts.gate_up_proj), down=b.experts.down_proj, **shared(b.shared_expert),
                                                  shared_router=b.shared_expert_gate.weight[0])


def gpt_oss(rng):
    c = transformers.GptOssConfig(hidden_size=H, intermediate_size=F, num_local_experts=E, num_experts_per_tok=4)
    b = make(models("gpt_oss").GptOssMLP(c), rng, stronger=6.0)     # the limit of 7 is reached
    e = b.experts
    gate_up = e.gate_up_proj.transpose(1, 2)                        # [E, 2F, H], gate and up by turns
    return b, dict(score=SELECTED, n_used=4, swiglu_alpha=f32(e.alpha), swiglu_limit=f32(e.limit), swiglu_add=1.0), dict(
        router=b.router.weight, logit_bias=b.router.bias, gate=gate_up[:, ::2], up=gate_up[:, 1::2], down=e.down_proj.transpose(1, 2),
        gate_bias=e.gate_up_proj_bias[:, ::2], up_bias=e.gate_up_proj_bias[:, 1::2], down_bias=e.down_proj_bias)


def llama4(rng):
    c = transformers.Llama4TextConfig(hidden_size=H, intermediate_size=F, num_local_experts=E, num_experts_per_tok=1, hidden_act="silu")
    b = make(models("llama4").Llama4TextMoe(c), rng)
    return b, dict(score=SIGMOID, n_used=1, weight_before=1), dict(router=b.router.weight, **halves(b.experts.gate_up_proj.transpose(1, 2)), down=b.experts.down_proj.transpose(1, 2),
                                                                   **shared(b.shared_expert))


def deepseek_v3(rng):
    c = transformers.DeepseekV3Config(hidden_size=H, moe_intermediate_size=F, n_routed_experts=E, num_experts_per_tok=3, n_shared_experts=2, n_group=4, topk_group=2, norm_topk_prob=True,
                                      routed_scaling_factor=2.5, hidden_act="silu")
    b = make(models("deepseek_v3").DeepseekV3MoE(c), rng)
    return b, dict(score=SIGMOID, n_used=3, renormalise=1, scale=2.5, sum_add=f32(1e-20), n_groups=4, n_groups_used=2, group_score=1), dict(
        router=b.gate.weight, selection_bias=b.gate.e_score_correction_bias, **halves(b.experts.gate_up_proj), down=b.experts.down_proj, **shared(b.shared_experts))


def nemotron_h(rng):
    c = transformers.NemotronHConfig(hidden_size=H, moe_intermediate_size=F, n_routed_experts=E, num_experts_per_tok=3, moe_shared_expert_intermediate_size=20, n_group=1, topk_group=1,
                                     norm_topk_prob=True, routed_scaling_factor=2.5, mlp_hidden_act="relu2", mlp_bias=False)
    b = make(models("nemotron_h").NemotronHMoE(c), rng)
    return b, dict(score=SIGMOID, n_used=3, renormalise=1, scale=2.5, sum_add=f32(1e-20), activation=RELU2), dict(
        router=b.gate.weight, selection_bias=b.gate.e_score_correction_bias, up=b.experts.up_proj, down=b.experts.down_proj, **shared(b.shared_experts))


def phimoe(rng):
    c = transformers.PhimoeConfig(hidden_size=H, intermediate_size=F, num_local_experts=E, num_experts_per_tok=2, router_jitter_noise=f32(0.3), hidden_act="silu")
    b = make(models("phimoe").PhimoeSparseMoeBlock(c), rng)
    return b, dict(score=SPARSEMIXER, n_used=2, jitter=f32(0.3)), dict(router=b.router.weight, **halves(b.experts.gate_up_proj), down=b.experts.down_proj)


def switch(rng):
    c = transformers.SwitchTransformersConfig(d_model=H, d_ff=F, num_experts=E, expert_capacity=2, dense_act_fn="relu", dropout_rate=0.0)
    b = make(models("switch_transformers").SwitchTransformersSparseMLP(c), rng)
    experts = [b.experts[f"expert_{i}"] for i in range(E)]
    return b, dict(score=SOFTMAX, n_used=1, capacity=1, capacity_min=2, activation=RELU), dict(
        router=b.router.classifier.weight, up=torch.stack([e.wi.weight for e in experts]), down=torch.stack([e.wo.weight for e in experts]))


class Forced(torch.nn.Module):
    """Experts whose routing is given."""
    def __init__(self, experts, ids, weights):
        super().__init__()
        self.experts, self.ids, self.weights = experts, ids, weights

    def forward(self, x):
        return self.experts(x[0], self.ids, self.weights)


def gemma4(rng):
    c = transformers.Gemma4TextConfig(hidden_size=H, moe_intermediate_size=F, num_experts=E, hidden_activation="gelu_pytorch_tanh")
    e = make(models("gemma4").Gemma4TextExperts(c), rng, stronger=2.0)
    ids = torch.stack([torch.from_numpy(rng.permutation(E)[:2]) for _ in range(N)])
    weights = torch.from_numpy(rng.uniform(0.1, 1, (N, 2)).astype(np.float32).astype(np.float64))
    return Forced(e, ids, weights), dict(select=FORCED, score=6, n_used=2, activation=GELU_TANH), dict(**halves(e.gate_up_proj), down=e.down_proj, forced_ids=ids, forced_weights=weights)


def gelu_erf(rng):
    """PyTorch's own gelu, on gpt-oss's and Switch's frame: no published MoE model of transformers' has it."""
    c = transformers.SwitchTransformersConfig(d_model=H, d_ff=F, num_experts=E, expert_capacity=N, dense_act_fn="gelu", dropout_rate=0.0)
    b = make(models("switch_transformers").SwitchTransformersSparseMLP(c), rng, stronger=2.0)
    experts = [b.experts[f"expert_{i}"] for i in range(E)]
    return b, dict(score=SOFTMAX, n_used=1, activation=GELU_ERF), dict(
        router=b.router.classifier.weight, up=torch.stack([e.wi.weight for e in experts]), down=torch.stack([e.wo.weight for e in experts]))


BLOCKS = dict(mixtral=mixtral, qwen2moe=qwen2moe, gpt_oss=gpt_oss, llama4=llama4, deepseek_v3=deepseek_v3, nemotron_h=nemotron_h, phimoe=phimoe, switch=switch, gemma4=gemma4, gelu_erf=gelu_erf)


def write(name, out):
    rng = np.random.default_rng(sum(name.encode()))
    with float32_means_float64():
        block, keys, tensors = BLOCKS[name](rng)
        x = rng.standard_normal((N, H)).astype(np.float16).astype(np.float64)
        with torch.no_grad():
            y = block(torch.from_numpy(x)[None])
        y = (y[0] if isinstance(y, tuple) else y).reshape(N, H).numpy()
    w = gguf.GGUFWriter(out / f"{name}.gguf", "moe-layer")
    for key, value in keys.items():
        (w.add_float32 if isinstance(value, float) else w.add_uint32)("layer." + key, value)
    for key, tensor in tensors.items():
        array = tensor.detach().numpy()
        exact = key.startswith("forced_weights") or array.ndim == 1 or key.endswith("bias")
        kind = np.int32 if key == "forced_ids" else np.float32 if exact else np.float16
        w.add_tensor(key, np.ascontiguousarray(array.astype(kind)))
        assert (array.astype(kind) == array).all(), key
    w.add_tensor("x", x.astype(np.float32))
    w.add_tensor("y", y.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{name}: |y| {np.abs(y).mean():.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BLOCKS))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "layer")
    o = parser.parse_args()
    o.out.mkdir(exist_ok=True)
    for name in o.names or BLOCKS:
        write(name, o.out)


if __name__ == "__main__":
    main()
