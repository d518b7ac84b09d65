#!/usr/bin/env python3
"""Makes tests/golden/oracle/: what tests/test_reference.c compares the C references with.

    make_oracle.py ORACLE.py OUT_DIR          needs numpy and gguf (pip install numpy gguf)

NAME.gguf, NAME.npy   a tiny random F32 model and its logits [tokens][vocab] f64 for the tokens of tokens.npy, computed by ORACLE.py: an
                      independent forward pass in numpy, which was compared with llama.cpp (NMSE below 3e-12).
dequant.gguf          random blocks of each type, tensor TYPE, and the same dequantised by gguf-py, tensor TYPE.f32.
"""
import importlib.util
import sys
from pathlib import Path

import gguf
import numpy as np

TINY = dict(H=16, L=2, nh=2, nkv=1, hd=8, ff=8, E=4, V=40)
GRANITE = dict(emb=12.0, res=0.22, att=0.2, log=6.0)
MODELS = {
    # architecture: (changes to the oracle's model of that name, keys the oracle does not write)
    "llama": (dict(base=100.0, yarn=dict(f=8.0, orig=1500, logmul=None)), {}),
    "olmoe": (dict(nkv=2), {}),
    "qwen2moe": (dict(nkv=2, shared=12), {}),
    "qwen3moe": (dict(nh=4, nkv=2, nrot=4), {}),
    "granitemoe": (dict(GRANITE, shared=12), {"granitemoe.expert_shared_feed_forward_length": 12}),
}
TOKENS = [1, 5, 17, 20, 35, 39, 3, 0, 2, 7, 7, 12, 31, 24, 8, 36]


def load_oracle(path):
    sys.argv = [str(path), "imported"]  # it acts on its arguments when it is read
    spec = importlib.util.spec_from_file_location("oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_f32(config):
    """The file holds numbers as f32: give the oracle the same ones."""
    return {k: float(np.float32(v)) if isinstance(v, float) else v for k, v in config.items()}


def models(oracle, out):
    configs = {name: as_f32({**oracle.A[name], **TINY, **changes}) for name, (changes, _) in MODELS.items()}
    oracle.A.clear()
    oracle.A.update(configs)

    class Writer(gguf.GGUFWriter):
        def __init__(self, path, arch):
            super().__init__(path, arch)
            for key, value in MODELS[arch][1].items():
                self.add_uint32(key, value)

        def add_token_list(self, *_):  # a vocabulary would be half of the file
            pass

        add_token_scores = add_token_types = add_token_list

    oracle.gguf.GGUFWriter = Writer
    oracle.gen(str(out))
    tokens = np.array(TOKENS, dtype=np.int32)
    np.save(out / "tokens.npy", tokens)
    for name in MODELS:
        np.save(out / f"{name}.npy", oracle.ref(name, tokens))


def random_blocks(kind, rng, n):
    """Random bytes with scales that are finite: halves of either sign, some of them subnormal."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    halves = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
              "F16": [0]}.get(kind.name, [])
    for at in halves:
        values = rng.standard_normal(n) * 10.0 ** rng.uniform(-7, 2, n)
        blocks[:, at:at + 2] = values.astype("<f2").view(np.uint8).reshape(n, 2)
    if kind.name == "BF16":
        blocks[:, 1] &= 0xBF  # exponent below 128: finite
    return blocks.reshape(1, -1)


def dequant(out):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / "dequant.gguf", "none")
    for name in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]:
        kind = gguf.GGMLQuantizationType[name]
        elements = gguf.GGML_QUANT_SIZES[kind][0]
        blocks = random_blocks(kind, rng, {1: 256, 32: 8, 256: 2}[elements])
        writer.add_tensor(name, blocks, raw_dtype=kind)
        writer.add_tensor(name + ".f32", gguf.dequantize(blocks, kind).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    oracle_path, out_dir = Path(sys.argv[1]), Path(sys.argv[2])
    out_dir.mkdir(parents=True, exist_ok=True)
    dequant(out_dir)
    models(load_oracle(oracle_path), out_dir)
