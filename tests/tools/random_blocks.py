"""Random weights in any GGUF type: quantised from normal numbers, or as valid random blocks.

gguf-py quantises the 32-element types and not the K-quants. For those, and for files too large to make the slow way, blocks
are made up directly: random bits for the quants, scales such that the dequantised numbers have mean 0 and the wanted spread.
Every bit of a block varies, so a reader that drops one is noticed.
"""
import functools

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
K_QUANTS = (Type.Q4_K, Type.Q5_K, Type.Q6_K)

# What llama-quantize takes instead when a row is not a whole number of blocks (256 elements, then 32).
FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}


def usable_type(wanted, row):
    """`wanted`, or what stands in for it in rows of `row` elements."""
    if row % gguf.GGML_QUANT_SIZES[wanted][0] != 0:
        wanted = FALLBACK.get(wanted, Type.F16)
    if row % gguf.GGML_QUANT_SIZES[wanted][0] != 0:
        wanted = Type.F16
    return wanted


def random_tensor(rng, shape, std, kind):
    """Normal numbers of spread std as `kind`, as add_tensor(raw_dtype=kind) wants them; K-quants as random blocks."""
    if kind in K_QUANTS:
        return random_blocks(rng, shape, std, kind)
    return gguf.quantize((rng.standard_normal(shape, dtype=np.float32) * np.float32(std)), kind)


def random_blocks(rng, shape, std, kind):
    """Random blocks of a quantised `kind`, as bytes [..][row bytes]. Much faster than quantising."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    n = int(np.prod(shape)) // elements
    blocks = unit_blocks(rng, n, kind, np.float32(std / unit_spread(kind)))
    return blocks.reshape(*shape[:-1], shape[-1] // elements * size)


@functools.cache
def unit_spread(kind):
    """Spread of what unit_blocks makes with scale 1, measured: shorter than a formula for each layout, and no more to get wrong."""
    blocks = unit_blocks(np.random.default_rng(0), 20000, kind, np.float32(2.0 ** -6))  # small, so that no half overflows
    return float(gguf.dequantize(blocks, kind).std()) * 2.0 ** 6


def unit_blocks(rng, n, kind, scale):
    """n blocks [n][block bytes] whose scales d are about `scale`. Layouts: ggml-common.h."""
    block = np.frombuffer(rng.bytes(n * gguf.GGML_QUANT_SIZES[kind][1]), np.uint8).reshape(n, -1).copy()
    d = (scale * rng.uniform(0.5, 1.5, n)).astype(np.float32)
    sign = np.where(rng.integers(0, 2, n) == 1, np.float32(1), np.float32(-1))

    def put_half(at, x):
        block[:, at:at + 2] = x.astype(np.float16).view(np.uint8).reshape(n, 2)

    # Types without a minimum: d has either sign, as in real files, which also takes the mean of the lopsided range -8..7 to zero.
    # Types with one (Q4_1, Q5_1, Q4_K, Q5_K): the minimum sits in the middle of the range.
    if kind in (Type.Q4_0, Type.Q5_0, Type.Q8_0):
        put_half(0, d * sign)
    elif kind in (Type.Q4_1, Type.Q5_1):
        put_half(0, d)
        put_half(2, d * (-7.5 if kind == Type.Q4_1 else -15.5))
    elif kind in (Type.Q4_K, Type.Q5_K):
        put_half(0, d)
        put_half(2, d * (7.5 if kind == Type.Q4_K else 15.5))
        # Minima follow the scales of their 32 elements at some distance; independent ones would drown the quants.
        sc = rng.integers(0, 64, (n, 8), dtype=np.uint8)
        mn = np.clip(sc.astype(np.int16) + rng.integers(-8, 9, (n, 8), dtype=np.int16), 0, 63).astype(np.uint8)
        block[:, 4:8] = sc[:, :4] | sc[:, 4:] >> 4 << 6
        block[:, 8:12] = mn[:, :4] | mn[:, 4:] >> 4 << 6
        block[:, 12:16] = sc[:, 4:] & 15 | (mn[:, 4:] & 15) << 4
    elif kind == Type.Q6_K:
        put_half(208, d * sign)  # the sixteen int8 scales stay random: they have signs of their own
    else:
        raise ValueError(f"no random blocks of {kind.name}")
    return block
