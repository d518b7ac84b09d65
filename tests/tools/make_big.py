#!/usr/bin/env python3
"""Writes a model of true shape with random weights: for speed, memory and limits, where a download is no option.

The blocks are valid and random, the text it produces is noise. Written a tensor at a time, so a machine needs no more memory than
the largest one takes (about 1 GB). --layers cuts the depth to fit a GPU; speed per layer stays what it is.

    pip install numpy gguf
    tests/tools/make_big.py olmoe-1b-7b olmoe-q4_k.gguf                       # 3.9 GB
    tests/tools/make_big.py qwen3-30b-a3b q.gguf --layers 12 --mix            # like Q4_K_M
    tests/tools/make_big.py mixtral-8x7b m.gguf --layers 4 --type Q8_0
"""
import argparse
import math
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

from gguf import GGMLQuantizationType as Type

import moe_model
from moe_model import Config

# Shapes: the models' published config.json files.
PRESETS = {
    "olmoe-1b-7b": (
        Config("olmoe", n_embd=2048, n_layer=16, n_head=16, n_head_kv=16, head_dim=128, width=1024, n_expert=64, n_used=8,
               n_vocab=50304, n_ctx=4096, eps=1e-5),
        moe_model.write_bpe_vocabulary("olmo", {50279: "|||IP_ADDRESS|||", 1: "<|padding|>", "eos": 50279, "pad": 1})),
    "qwen3-30b-a3b": (
        Config("qwen3moe", n_embd=2048, n_layer=48, n_head=32, n_head_kv=4, head_dim=128, width=768, n_expert=128, n_used=8,
               n_vocab=151936, n_ctx=40960, eps=1e-6, rope_base=1e6),
        moe_model.write_bpe_vocabulary("qwen2", {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>",
                                                 "bos": 151643, "eos": 151645, "pad": 151643})),
    "mixtral-8x7b": (
        Config("llama", n_embd=4096, n_layer=32, n_head=32, n_head_kv=8, head_dim=128, width=14336, n_expert=8, n_used=2,
               n_vocab=32000, n_ctx=32768, eps=1e-5, rope_base=1e6),
        moe_model.write_spm_vocabulary),
}


def more_bits(layer, n_layer):
    """The layers that llama-quantize's _M mixes spend more on: the first and last eighth, and every third between."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def type_rule(wanted, mix, n_layer):
    def type_of(name, shape):
        if not mix:
            return wanted
        if name == "output.weight":
            return Type.Q6_K
        m = re.match(r"blk\.(\d+)\.(attn_v|ffn_down_exps)\.weight", name)
        return Type.Q6_K if m and more_bits(int(m[1]), n_layer) else wanted
    return type_of


def once(make):
    """The same numbers for every tensor of a shape, spread and type."""
    made = {}

    def again(rng, shape, spread, kind):
        key = (tuple(shape), float(spread), kind)
        if key not in made:
            made[key] = make(rng, shape, spread, kind)
        return made[key]
    return again


def main():
    kinds = [t.name for t in moe_model.TYPES]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("preset", choices=PRESETS)
    p.add_argument("out", type=Path)
    p.add_argument("--type", choices=kinds, default="Q4_K", help="default: Q4_K")
    p.add_argument("--mix", action="store_true", help="as in Q4_K_M: Q6_K for the output and for attn_v and ffn_down of half the layers")
    p.add_argument("--layers", type=int, help="fewer layers than the model has")
    p.add_argument("--same-layers", action="store_true", help="all layers have the same numbers: written as fast as the disk takes them")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    if args.same_layers:
        moe_model.random_tensor, moe_model.random_blocks = once(moe_model.random_tensor), once(moe_model.random_blocks)

    config, vocabulary = PRESETS[args.preset]
    config = replace(config, n_layer=args.layers or config.n_layer)
    start = time.monotonic()

    def progress(done, total, name):
        if sys.stderr.isatty():
            print(f"\r{done}/{total} {name:40s}", end="\n" if done == total else "", file=sys.stderr)

    plan = moe_model.stream_random(args.out, config, type_rule(Type[args.type], args.mix, config.n_layer), vocabulary, args.seed, progress)
    parameters = sum(math.prod(shape) for _, shape, _, _ in plan)
    print(f"{args.out}: {config.arch}, {config.n_layer} layers, {parameters / 1e9:.2f}e9 parameters, "
          f"{args.out.stat().st_size / 1e9:.2f} GB in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
