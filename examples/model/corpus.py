"""Writes the corpus of the bundled model: short tavern tales and dialogues, made up from a seed.

    python3 corpus.py --out DIR [--count 100000] [--seed 1]

DIR gets train.txt and heldout.txt, documents separated by a line `<|endoftext|>`. Standard library only.
"""
import argparse
import hashlib
import os
import random

from grammar import Scene
from tales import TALES
from talk import dialogue

SEPARATOR = "<|endoftext|>\n"
DIALOGUE_SHARE = 0.3


def document(seed, index):
    """Document `index` of the corpus `seed`; each has its own generator, so any of them can be made alone."""
    rng = random.Random(f"{seed}/{index}")
    if rng.random() < DIALOGUE_SHARE:
        return dialogue(rng)
    return rng.choice(TALES)(Scene(rng))


def is_heldout(seed, index, share):
    """A split that depends on the seed and the index only, not on how many documents are made."""
    digest = hashlib.sha256(f"split/{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heldout", type=float, default=0.01)
    args = parser.parse_args()

    os.makedirs(args.out, exist_ok=True)
    seen, words, counts = set(), 0, {"train": 0, "heldout": 0}
    files = {name: open(os.path.join(args.out, name + ".txt"), "w", encoding="utf-8") for name in counts}
    for index in range(args.count):
        text = document(args.seed, index)
        key = hashlib.md5(text.encode()).digest()
        if key in seen:  # a held-out document must not be in the training part too
            continue
        seen.add(key)
        part = "heldout" if is_heldout(args.seed, index, args.heldout) else "train"
        files[part].write(text + "\n" + SEPARATOR)
        counts[part] += 1
        words += len(text.split())
    for f in files.values():
        f.close()
    print(f"{counts['train']} training and {counts['heldout']} held-out documents, {words} words")


if __name__ == "__main__":
    main()
