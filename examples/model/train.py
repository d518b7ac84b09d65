"""Trains the bundled model on one CPU thread for a given wall time.

    python3 train.py --corpus DIR --out DIR [--minutes 55]

DIR of --out gets tokenizer.json (kept when it exists) and model.pt, written again every minute, so that a run that
is stopped early still leaves a model. The learning rate follows the clock, not a step count: a slower machine makes
fewer steps, and the schedule still ends at its end. For the same reason two runs are never the same bit for bit.
"""
import argparse
import math
import os
import random
import time

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from model import Config, Model

SEPARATOR = "<|endoftext|>"
# The qwen2 pre-tokenizer, as `tokenizer.ggml.pre = qwen2` promises it to the reader of the GGUF file.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")


def read_documents(path):
    with open(path, encoding="utf-8") as f:
        return [d.strip("\n") for d in f.read().split(SEPARATOR + "\n") if d.strip()]


def train_tokenizer(documents, vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[SEPARATOR], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    return tokenizer


def pack(tokenizer, documents, length, seed):
    """Rows of length+1 tokens, each starting at the start of a document; what is left of a row holds a cut one.

    Rows start with a document because a prompt does: position 0 is always the first word of a text.
    """
    eos = tokenizer.token_to_id(SEPARATOR)
    ids = [e.ids + [eos] for e in tokenizer.encode_batch(documents)]
    rng = random.Random(seed)
    rng.shuffle(ids)
    rows, waiting = [], []
    for doc in ids:
        waiting.append(doc[: length + 1])
        if len(waiting) == 64:  # best fit among 64 keeps cut documents rare and the order random
            rows.append(fill_row(waiting, length + 1))
    return np.array(rows, dtype=np.int16).reshape(-1, length + 1)  # the last 63 documents may fill no row


def fill_row(waiting, size):
    row = waiting.pop(0)
    while len(row) < size:
        fitting = [i for i, d in enumerate(waiting) if len(d) <= size - len(row)]
        if not fitting:
            return row + random.Random(len(waiting[0])).choice(waiting)[: size - len(row)]
        row = row + waiting.pop(max(fitting, key=lambda i: len(waiting[i])))
    return row


def batches(rows, count, seed):
    """Endless batches; epoch after epoch in new order."""
    epoch = 0
    while True:
        order = np.random.default_rng(seed + epoch).permutation(len(rows))
        for i in range(0, len(order) - count + 1, count):
            block = torch.from_numpy(rows[order[i:i + count]].astype(np.int64))
            yield epoch + i / len(order), block[:, :-1], block[:, 1:]
        epoch += 1


@torch.no_grad()
def evaluate(model, rows, limit=64):
    """Mean loss in nats per token, and tokens per expert [layers][experts]."""
    model.eval()
    loss, counts, n = 0.0, 0, 0
    for i in range(0, min(limit, len(rows)), 8):
        block = torch.from_numpy(rows[i:min(i + 8, limit)].astype(np.int64))
        l, _, c = model(block[:, :-1], block[:, 1:])
        loss, counts, n = loss + l.item() * len(block), counts + c, n + len(block)
    model.train()
    return loss / n, counts


@torch.no_grad()
def generate(model, tokenizer, prompt, temperature, tokens=160, seed=0):
    rng = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    for _ in range(tokens):
        logits = model(torch.tensor([ids[-model.c.context:]]))[0][0, -1]
        if temperature == 0:
            token = logits.argmax().item()
        else:
            token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng).item()
        if token == tokenizer.token_to_id(SEPARATOR):
            break
        ids.append(token)
    return tokenizer.decode(ids)


def optimizer_for(model, lr):
    """No decay for norms, nor for the embedding: it would make rare tokens, such as names, short and alike."""
    matrices = [p for p in model.parameters() if p.dim() > 1 and p is not model.embed.weight]
    others = [p for p in model.parameters() if p.dim() == 1] + [model.embed.weight]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                             lr=lr, betas=(0.9, 0.98), fused=True)


def learning_rate(done, peak):
    """Warm-up over the first 2 % of the time, then a cosine down to 3 % of the peak."""
    if done < 0.02:
        return peak * max(done / 0.02, 0.02)
    return peak * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - 0.02) / 0.98))))


def save(model, args, note):
    """Written beside and renamed: a reader never sees half a file."""
    path = os.path.join(args.out, "model.pt")
    torch.save({"config": model.c.as_dict(), "weights": model.state_dict(), "note": note}, path + ".tmp")
    os.replace(path + ".tmp", path)


def load(path):
    """The model of a checkpoint and its note (what training knew when it was written)."""
    data = torch.load(path, weights_only=True)
    model = Model(Config(**data["config"]))
    model.load_state_dict(data["weights"])
    return model, data["note"]


def prepare(args):
    documents = read_documents(os.path.join(args.corpus, "train.txt"))
    path = os.path.join(args.out, "tokenizer.json")
    if not os.path.exists(path):
        train_tokenizer(documents[:20000], Config.vocab).save(path)
    tokenizer = Tokenizer.from_file(path)
    heldout = pack(tokenizer, read_documents(os.path.join(args.corpus, "heldout.txt")), Config.context, 0)
    # Short rows first: attention costs half, and most tales fit. Long rows at the end teach the far positions.
    short = pack(tokenizer, documents, Config.context // 2, args.seed)
    full = pack(tokenizer, documents, Config.context, args.seed + 1)
    print(f"{len(documents)} documents; {len(short)} short rows, {len(full)} full rows = {full.size} tokens", flush=True)
    return tokenizer, heldout, short, full


def train(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    tokenizer, heldout, short, full = prepare(args)
    model = load(args.continue_from)[0] if args.continue_from else Model(Config())
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    optimizer = optimizer_for(model, args.lr)
    stages = (batches(short, args.tokens // 256, args.seed), batches(full, args.tokens // 512, args.seed))

    start, last_save, step, seen, mean = time.time(), time.time(), 0, 0, None
    while (done := (time.time() - start) / (60 * args.minutes)) < 1:
        epoch, x, y = next(stages[done >= args.short_share])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, args.lr)
        with torch.autocast("cpu", torch.bfloat16):
            loss, balance, counts = model(x, y)
        (loss + args.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, seen = step + 1, seen + x.numel()
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"{done:5.1%} step {step} tokens {seen} epoch {epoch:.2f} loss {mean:.4f} balance {balance.item():.3f} "
                  f"{seen / (time.time() - start):.0f} tokens/s", flush=True)
        if time.time() - last_save > 60:
            save(model, args, {"steps": step, "tokens": seen, "seconds": time.time() - start, "done": done})
            last_save = time.time()
    note = {"steps": step, "tokens": seen, "seconds": time.time() - start, "done": 1.0}
    save(model, args, note)
    print("held-out loss", *evaluate(model, heldout, len(heldout)), note, sep="\n")
    print(generate(model, tokenizer, "Once upon a time", 0.8))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    parser.add_argument("--short-share", type=float, default=0.3, help="share of the time on rows of half the context")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--continue-from", metavar="FILE", help="start from this model.pt instead of from nothing")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
