#!/usr/bin/env python3
"""The MoE layer in torch: grouped bf16 matmuls and torch's own kernels around them, for the shapes of two models, 512 and 4,096 tokens, uniform routing.

    torch_layer.py [--check]      --check: small shapes, any device, each path against a loop over experts in f32; no times

Lines: shape, tokens, what, microseconds (median of 20), TFLOP/s of the three matmuls. "layer" is router, softmax + top-k, sort, gather, gate|up, silu * up,
down, weighting, and back to the order of tokens ("sum": gather by the inverse permutation and sum over k; "add": index_add), in both layouts of the weights
("nk": [expert][n][k], as checkpoints have them, "kn": [expert][k][n]), as it is and as a CUDA graph. The last line of a shape is the fastest.
"""
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SHAPES = {"qwen3-30b-a3b": (2048, 768, 128, 8), "mixtral-8x7b": (4096, 14336, 8, 2)}
CHECK = "--check" in sys.argv
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
GROUPED = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def grouped(a, b, ends):
    """Rows of a in groups that end at `ends`, each times its matrix of b [expert][k][n]."""
    return GROUPED(a, b, offs=ends)


def experts(x, w1, w2, ends):
    gate, up = grouped(x, w1, ends).chunk(2, -1)
    return grouped(F.silu(gate) * up, w2, ends)


def layer(x, router, w1, w2, k, back):
    n, e = x.shape[0], w1.shape[0]
    p, chosen = torch.softmax((x @ router).float(), -1).topk(k, -1)
    p = p / p.sum(-1, keepdim=True)
    flat = chosen.reshape(-1)
    by_expert, order = torch.sort(flat)
    ends = torch.searchsorted(by_expert, torch.arange(e, device=x.device), right=True).to(torch.int32)   # (bincount would wait for the device)
    token = order // k
    y = experts(x[token], w1, w2, ends)
    if back == "add":
        return torch.zeros_like(x).index_add_(0, token, y * p.reshape(-1)[order].to(y.dtype).unsqueeze(-1))
    at = torch.empty_like(order).scatter_(0, order, torch.arange(n * k, device=x.device))
    return (y[at].view(n, k, -1) * p.to(y.dtype).unsqueeze(-1)).sum(1)


def reference(x, router, w1, w2, k):
    x, router, w1, w2 = x.float(), router.float(), w1.float(), w2.float()
    p, chosen = torch.softmax(x @ router, -1).topk(k, -1)
    p = p / p.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for e in range(w1.shape[0]):
        token, slot = (chosen == e).nonzero(as_tuple=True)
        gate, up = (x[token] @ w1[e]).chunk(2, -1)
        out.index_add_(0, token, (F.silu(gate) * up) @ w2[e] * p[token, slot].unsqueeze(-1))
    return out


def microseconds(f, runs=20):
    for _ in range(3):
        f()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1e3)
    return statistics.median(times)


def graph_of(f):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            f()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        f()
    return graph.replay


def attempt(what, f):
    try:
        return f()
    except Exception as e:   # one way that this torch has not must not stop the rest
        print(f"  {what}: {type(e).__name__}: {str(e).splitlines()[0][:140]}", flush=True)
        return None


def measure(name, h, width, e, k, counts):
    scale = lambda *shape: torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) * shape[-1] ** -0.5
    router = torch.randn(h, e, device=DEVICE, dtype=torch.bfloat16) * h ** -0.5
    nk = [scale(e, 2 * width, h), scale(e, h, width)]
    layouts = {"nk": [w.transpose(1, 2) for w in nk], "kn": [w.transpose(1, 2).contiguous() for w in nk]}
    for n in counts:
        x = torch.randn(n, h, device=DEVICE, dtype=torch.bfloat16)
        flops = 2 * n * k * 3 * h * width
        best = (float("inf"), "")
        if CHECK:
            want = reference(x, router, *layouts["kn"], k)
        # The matmuls alone, rows already sorted: each token k distinct experts, uniformly.
        counted = torch.bincount(torch.rand(n, e, device=DEVICE).topk(k, -1).indices.reshape(-1), minlength=e)
        ends, rows = counted.cumsum(0).to(torch.int32), torch.randn(n * k, h, device=DEVICE, dtype=torch.bfloat16)
        for layout, (w1, w2) in layouts.items():
            ways = [("experts", lambda: experts(rows, w1, w2, ends))]
            ways += [(f"layer {back}", lambda back=back: layer(x, router, w1, w2, k, back)) for back in ("sum", "add")]
            for what, f in ways:
                if CHECK:
                    got = attempt(what, f)
                    if got is not None and what != "experts":
                        error = ((got.float() - want) ** 2).sum() / (want ** 2).sum()
                        print(f"{name} {n} {layout} {what}: nmse {error:.1e} {'ok' if error < 1e-3 else 'WRONG'}")
                    continue
                for how, prepare in (("", lambda f: f), (" graph", graph_of)):
                    label = f"{layout} {what}{how}"
                    us = attempt(label, lambda: microseconds(prepare(f)))
                    if us is None:
                        continue
                    print(f"{name} {n} {label}: {us:.1f} us {flops / us / 1e6:.1f} TFLOP/s", flush=True)
                    if what != "experts":
                        best = min(best, (us, label))
        if best[1]:
            print(f"{name} {n} BEST {best[1]}: {best[0]:.1f} us", flush=True)


def main():
    torch.manual_seed(1)
    start = time.monotonic()
    print(f"# torch {torch.__version__} on {torch.cuda.get_device_name() if GPU else 'CPU'}, {GROUPED.__name__ if GROUPED else 'no grouped matmul'}")
    if CHECK:
        measure("small", 64, 32, 16, 4, (33,))
        return
    if not GPU or not GROUPED:
        print("needs a GPU and a torch that has grouped matmuls")
        return
    with torch.inference_mode():
        a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
        us = microseconds(lambda: a @ a)
        print(f"matmul bf16 8192^3: {us:.1f} us {2 * 8192 ** 3 / us / 1e6:.1f} TFLOP/s")
        del a
        for name, (h, width, e, k) in SHAPES.items():
            attempt(name, lambda: measure(name, h, width, e, k, (512, 4096)))
            torch.cuda.empty_cache()
    print(f"# {time.monotonic() - start:.1f} s")


main()
