"""Measures the model for README.md: held-out loss, expert balance, what the experts like, sample texts.

    python3 report.py --model DIR --corpus DIR [--gguf tavern-qwen3moe.gguf]
"""
import argparse
import math
import os

import torch

from export import HERE, read, tokenizer_of
from grammar import MEN, WOMEN
from train import evaluate, generate, load, pack, read_documents


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
def repeats(model, tokenizer, documents):
    """How often the likeliest token is right where a text names a person again (chance: about one in a hundred)."""
    names = {tokenizer.encode(" " + n).ids[0] for n in MEN + WOMEN if len(tokenizer.encode(" " + n).ids) == 1}
    right, total = 0, 0
    for text in documents:
        ids = tokenizer.encode(text).ids[: model.c.context]
        best = model(torch.tensor([ids]))[0][0].argmax(-1).tolist()
        seen = set()
        for i in range(1, len(ids)):
            if ids[i] in names:
                if ids[i] in seen:
                    right, total = right + (best[i - 1] == ids[i]), total + 1
                seen.add(ids[i])
    return right / total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=200, help="packed held-out rows to measure on")
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
    balance(counts.float())
    favourites(model, tokenizer, rows)
    print(f"names told again: {repeats(model, tokenizer, documents[:150]):.1%} predicted right")
    for prompt, temperature, seed in (("Once upon a time", 0, 0), ("On a rainy evening", 0.8, 1), ("There is a ghost", 0.8, 2),
                                      ("Mira the innkeeper: \"Welcome", 0.8, 3), ("Traveller: \"Who are you?\"\nGreta the smith:", 0.8, 4)):
        print(f"--- temperature {temperature}, seed {seed}\n" + generate(model, tokenizer, prompt, temperature, 350, seed))


if __name__ == "__main__":
    main()
