"""Measures the model for README.md: held-out loss, expert balance, what the experts like, sample texts.

    python3 report.py --model DIR --corpus DIR [--gguf tavern-qwen3moe.gguf]
"""
import argparse
import math
import os
import re

import torch

from export import HERE, read, tokenizer_of
from grammar import MEN, TOWNS, WOMEN
from tales import HEIRLOOMS
from train import evaluate, generate, load, pack, read_documents, told_again

TALE = "Once upon a time"
SAMPLES = ((TALE, 0, 0), ("On a rainy evening", 0.8, 1), ("There is a ghost", 0.8, 2),
           ("The storm kept everyone inside the Gilded Goose that night.", 0.7, 5),
           ("Mira the innkeeper: \"Welcome", 0.8, 3), ("Traveller: \"Who are you?\"\nGreta the smith:", 0.8, 4))


def balance(counts):
    """Per layer: smallest and largest share of the slots, and the entropy against its largest value."""
    for n, layer in enumerate((counts / counts.sum(-1, keepdim=True)).tolist()):
        entropy = -sum(p * math.log(p) for p in layer if p > 0)
        print(f"layer {n}: share min {min(layer):.1%} max {max(layer):.1%}, entropy {entropy:.3f} of {math.log(len(layer)):.3f} nats")


@torch.no_grad()
def favourites(model, tokenizer, rows, often=30):
    """For each expert the tokens it gets more of than its share: token (share of its slots that go to this expert)."""
    chosen = []
    hooks = [layer.experts.router.register_forward_hook(
        lambda _, __, logits: chosen.append(logits.topk(model.c.top_k, -1).indices)) for layer in model.layers]
    table = torch.zeros(model.c.layers, model.c.experts, model.c.vocab)
    for row in rows:
        chosen.clear()
        ids = torch.from_numpy(row[:-1].astype("int64"))
        model(ids[None])
        for n, experts in enumerate(chosen):
            for k in range(model.c.top_k):
                table[n].index_put_((experts[:, k], ids), torch.ones(()), accumulate=True)
    for hook in hooks:
        hook.remove()
    for n in range(model.c.layers):
        total = table[n].sum(0)
        share = table[n] / total.clamp(min=1)
        for e in range(model.c.experts):
            # weigh by frequency, so that a rare token with a share of 1 does not hide what the expert mostly does
            score = (share[e] - 1 / model.c.experts) * total.sqrt() * (total >= often)
            best = score.topk(8).indices.tolist()
            print(f"layer {n} expert {e}: " + ", ".join(f"{tokenizer.decode([t])!r} {share[e][t]:.0%}" for t in best))


@torch.no_grad()
def whole(model, tokenizer, documents):
    """Mean loss in nats per token where each document stands alone, as a prompt does; packed rows hold several."""
    losses = []
    for text in documents:
        ids = torch.tensor([(tokenizer.encode(text).ids + [0])[: model.c.context + 1]])
        losses.append(model(ids[:, :-1], ids[:, 1:])[0].flatten())
    return torch.cat(losses).mean().item()


def kept(texts):
    """Of the names in the second halves of texts, the share that the first half of the same text has as well."""
    name = re.compile(rf"\b({'|'.join(MEN + WOMEN)})\b")
    known, total = 0, 0
    for text in texts:
        later = name.findall(text[len(text) // 2:])
        known, total = known + sum(n in text[: len(text) // 2] for n in later), total + len(later)
    return known / total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=200, help="packed held-out rows to measure on")
    parser.add_argument("--tales", type=int, default=12, help="tales to sample at each temperature")
    parser.add_argument("--gguf", default=os.path.join(HERE, "tavern-qwen3moe.gguf"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    trained, note = load(os.path.join(args.model, "model.pt"))
    model, fields = read(args.gguf)
    tokenizer = tokenizer_of(fields)
    documents = read_documents(os.path.join(args.corpus, "heldout.txt"))
    rows = pack(tokenizer, documents, model.c.context, 0)[: args.rows]
    print(f"training: {note}")
    print(f"{sum(p.numel() for p in model.parameters())} parameters; measured on {rows[:, 1:].size} held-out tokens")
    for name, m in (("f32", trained), ("exported", model)):
        loss, counts = evaluate(m, rows, len(rows))
        print(f"{name}: {loss:.4f} nats/token, perplexity {math.exp(loss):.3f}")
    print(f"exported, whole documents: {whole(model, tokenizer, documents[:300]):.4f} nats/token")
    balance(counts.float())
    favourites(model, tokenizer, rows)
    for what, words in (("persons", MEN + WOMEN), ("things", HEIRLOOMS), ("towns", TOWNS)):
        right, among = told_again(model, tokenizer, documents[:300], words)
        print(f"{what} told again: {right:.1%} predicted right, {among:.1%} one of those told before")
    print(f"persons kept in the second half: {kept(d for d in documents if TALE in d):.1%} in held-out tales")
    for temperature in (0.4, 0.8):
        tales = [generate(model, tokenizer, TALE, temperature, 350, seed) for seed in range(args.tales)]
        print(f"persons kept in the second half: {kept(tales):.1%} in {len(tales)} tales at temperature {temperature}")
        for seed, tale in enumerate(tales):
            print(f"--- temperature {temperature}, seed {seed}\n{tale}")
    for prompt, temperature, seed in SAMPLES:
        print(f"--- temperature {temperature}, seed {seed}\n" + generate(model, tokenizer, prompt, temperature, 350, seed))


if __name__ == "__main__":
    main()
