#!/usr/bin/env python3
"""vkmoe against an independent float64 forward pass: every architecture x weight type x prompt length x prefill and decode.

Writes random GGUF files, computes their logits in numpy (moe_forward.py, which shares nothing with the C code), runs
`vkmoe logits` on every driver and tier asked for, and prints a markdown table: the worst NMSE of each row, and the smallest
router margin on its tokens, because a near tie may legitimately flip. Files and reference logits are kept in --cache, so a second
run only runs vkmoe. Exits 1 if anything is over its limit.

    pip install numpy gguf
    tests/tools/oracle_table.py --vkmoe build/vkmoe --tier baseline,subgroup,fp16
    tests/tools/oracle_table.py --vkmoe build/vkmoe --arch olmoe --type Q4_K,Q6_K --size e128 --variant fused,tied
    tests/tools/oracle_table.py --vkmoe build/vkmoe --driver lavapipe=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json \\
                                --driver swiftshader=/opt/swiftshader/vk_swiftshader_icd.json
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Before numpy is loaded. The products here are too small for several threads to pay, and idle BLAS threads spin: on a machine that
# runs something else as well they made everything ten times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from gguf import GGMLQuantizationType as Type

import moe_forward
import moe_model
import random_blocks
from moe_forward import nmse

# Worst NMSE allowed. The f32 tiers only round; fp16 keeps activations in half precision; int8dot quantises them to 8 bits.
# A half-precision KV cache costs an f32 tier about 1e-8.
LIMITS = {"baseline": 1e-9, "subgroup": 1e-9, "fp16": 1e-5, "int8dot": 5e-3, "coopmat": 1e-5}
LIMIT_KV_F16 = 1e-6

# Prompts are picked so that no router choice is nearer than this, where the model allows it: clear of what the tier's rounding moves it, half precision's or int8's.
WANTED_MARGIN, WANTED_MARGIN_INT8DOT = 0.03, 0.15


@dataclass
class Reference:
    model: Path          # the GGUF file
    tokens: list
    logits: np.ndarray   # [n_tokens][n_vocab] float64
    margins: np.ndarray  # [n_tokens]


def reference(cache, arch, kind, size, variants, seed, n_tokens, margin):
    """The random model and its float64 logits, from the cache or made now."""
    # The sources are part of the name: whoever changes them must not be served old answers.
    sources = b"".join(Path(m.__file__).read_bytes() for m in (moe_forward, moe_model, random_blocks))
    digest = hashlib.sha256(sources + json.dumps([n_tokens, margin]).encode()).hexdigest()[:8]
    stem = cache / "-".join([arch, kind.name, size, *variants, f"s{seed}", digest])
    model, answer = stem.with_name(stem.name + ".gguf"), stem.with_name(stem.name + ".npz")
    if not model.exists():
        part = model.with_name(model.name + ".part")  # an interrupted run leaves no half file behind
        moe_model.write_random(part, moe_model.small_config(arch, size, variants), kind, seed)
        part.rename(model)
    if not answer.exists():
        forward = moe_forward.Model(model)
        tokens = moe_forward.pick_tokens(forward, n_tokens, np.random.default_rng(seed), margin)
        result = forward.eval(tokens)
        part = answer.with_name(answer.name + ".part.npz")
        np.savez(part, tokens=tokens, logits=result.logits, margins=result.margins)
        part.rename(answer)
    with np.load(answer) as a:
        return Reference(model, a["tokens"].tolist(), a["logits"], a["margins"])


def run_vkmoe(args, ref, n, decode, tier, icd):
    """Logits of one run, and what went wrong if it did not run."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.npy"
        command = [args.vkmoe, "logits", "-m", ref.model, "--tokens", ",".join(map(str, ref.tokens[:n])), "-o", out,
                   "--kv", args.kv, "--caps", tier]
        command += ["--decode"] if decode else []
        command += ["--device", args.device] if args.device else []
        command += args.extra
        environment = dict(os.environ)
        if icd:  # the second name is the one that older loaders know
            environment.update(VK_DRIVER_FILES=icd, VK_ICD_FILENAMES=icd)
        try:
            run = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, errors="replace",
                                 timeout=args.timeout)
        except subprocess.TimeoutExpired:
            return None, f"longer than {args.timeout} s"
        if run.returncode != 0 or not out.exists():
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            return None, f"exit {run.returncode}: {last}"
        found = np.load(out)
    if found.dtype != np.float32 or found.shape != (n, ref.logits.shape[1]):
        return None, f"wrote {found.dtype} {found.shape}"
    return found, None


def limit_of(args, tier):
    limit = LIMITS[tier.split(",")[0]]
    return max(limit, LIMIT_KV_F16) if args.kv == "f16" else limit


def test_row(args, arch, kind):
    """All runs of one model. Returns the cells of its table row and the failures, as sentences."""
    ref = reference(args.cache, arch, kind, args.size, args.variant, args.seed, max(args.prompts), args.margin)
    margin = float(ref.margins.min())
    cells, failures = [arch, kind.name, f"{margin:.1e}"], []
    for name, icd in args.driver:
        for tier in args.tier:
            worst, broken, limit = -1.0, None, limit_of(args, tier)
            decoded = run_vkmoe(args, ref, max(args.prompts), True, tier, icd) if "decode" in args.mode else None
            for n in args.prompts:
                for mode in args.mode:
                    # one token at a time, a shorter prompt is the beginning of the longest
                    found, why = decoded if mode == "decode" else run_vkmoe(args, ref, n, False, tier, icd)
                    error = None if why else nmse(found[:n], ref.logits[:n])
                    where = f"{arch} {kind.name} {args.size} {'+'.join(args.variant)} {name} {tier}, {n} tokens, {mode}"
                    if why:
                        broken = why
                        failures.append(f"{where}: {why}")
                    elif not error < limit:
                        failures.append(f"{where}: NMSE {error:.2e}, limit {limit:.0e}, router margin {ref.margins[:n].min():.1e}")
                    worst = max(worst, error if error is not None else worst)
                    if args.verbose:
                        print(f"{where}: {why or f'{error:.2e}'}", file=sys.stderr)
            cells.append("did not run" if broken else f"{worst:.1e}" + ("" if worst < limit else " **over**"))
    cells.append("FAIL" if failures else "pass")
    if args.discard:
        ref.model.unlink()
    return cells, failures


def parse():
    csv = lambda text: [item for item in text.split(",") if item]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vkmoe", type=Path, help="the program under test; without it only the files and references are made")
    p.add_argument("--arch", type=csv, default=list(moe_model.ARCHS), help="default: " + ",".join(moe_model.ARCHS))
    p.add_argument("--type", type=csv, default=[t.name for t in random_blocks.TYPES],
                   help="default: " + ",".join(t.name for t in random_blocks.TYPES))
    p.add_argument("--prompts", type=lambda s: [int(n) for n in csv(s)], default=[1, 7, 33, 200], metavar="N,...", help="default: 1,7,33,200")
    p.add_argument("--mode", type=csv, default=["prefill", "decode"], help="prefill,decode: all tokens at once, one at a time")
    p.add_argument("--driver", action="append", metavar="NAME=ICD_JSON", help="may be repeated; default: whatever the loader finds")
    p.add_argument("--tier", action="append", metavar="CAPS", help="`vkmoe --caps`: baseline | subgroup | fp16, comma-separated or "
                   "repeated; with clamps (baseline:range=1048576) after colons. Default: baseline,subgroup,fp16")
    p.add_argument("--size", choices=moe_model.SIZES, default="small")
    p.add_argument("--variant", type=csv, default=[], help="any of " + ",".join(moe_model.VARIANTS) + "; several apply together")
    p.add_argument("--kv", choices=["f32", "f16"], default="f32", help="type of the KV cache; limits are loosened for f16")
    p.add_argument("--device", help="passed on to vkmoe")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "vkmoe-oracle", help="default: %(default)s")
    p.add_argument("--timeout", type=float, default=600, help="seconds for one run of vkmoe")
    p.add_argument("--extra", type=str.split, default=[], help="more arguments for vkmoe, as one string")
    p.add_argument("--discard", action="store_true", help="delete each model file after its row (the largest sizes are 100 MB and more)")
    p.add_argument("--verbose", action="store_true", help="a line for every run")
    args = p.parse_args()

    args.driver = [tuple(d.split("=", 1)) for d in args.driver] if args.driver else [("default", None)]
    args.margin = WANTED_MARGIN
    args.tier = [t.replace(":", ",") for group in args.tier or ["baseline,subgroup,fp16"] for t in csv(group)]
    if any("int8dot" in tier for tier in args.tier):
        args.margin = WANTED_MARGIN_INT8DOT
    for given, known, what in ((args.arch, moe_model.ARCHS, "architecture"), (args.variant, moe_model.VARIANTS, "variant"),
                               (args.type, [t.name for t in random_blocks.TYPES], "type"), (args.mode, ("prefill", "decode"), "mode"),
                               ([t.split(",")[0] for t in args.tier], LIMITS, "tier")):
        for item in given:
            if item not in known:
                p.error(f"no {what} '{item}', there are {', '.join(known)}")
    # Tables of one variant over all architectures are common: leave out those that it does not apply to.
    args.arch = [a for a in args.arch if all(not moe_model.VARIANTS[v][0] or a in moe_model.VARIANTS[v][0] for v in args.variant)]
    args.cache.mkdir(parents=True, exist_ok=True)
    return args


def main():
    args = parse()
    if args.vkmoe is None:
        for arch in args.arch:
            for kind in args.type:
                ref = reference(args.cache, arch, Type[kind], args.size, args.variant, args.seed, max(args.prompts), args.margin)
                print(f"{ref.model}: {len(ref.tokens)} tokens, router margin {ref.margins.min():.1e}, "
                      f"logits std {ref.logits.std():.2f}")
        return 0

    columns = [f"{name} {tier}" for name, _ in args.driver for tier in args.tier]
    print(f"Size {args.size}" + (f", variant {'+'.join(args.variant)}" if args.variant else "") +
          f", seed {args.seed}, prompts of {', '.join(map(str, args.prompts))} tokens, {' and '.join(args.mode)}, KV cache {args.kv}. "
          "Worst NMSE against float64.\n")
    header = ["architecture", "weights", "router margin", *columns, "result"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
    failures, n_rows = [], 0
    for arch in args.arch:
        for kind in args.type:
            cells, bad = test_row(args, arch, Type[kind])
            failures += bad
            n_rows += 1
            print("| " + " | ".join(cells) + " |", flush=True)
    limits = ", ".join(f"{tier} {limit_of(args, tier):.0e}" for tier in args.tier)
    print(f"\nLimits: {limits}. {n_rows} models, {len(failures)} runs failed.")
    for sentence in failures:
        print(f"- {sentence}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
