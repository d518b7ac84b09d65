"""Trains the bundled model on the CPU for a given wall time, in f32.

    python3 train.py --corpus DIR --out DIR [--minutes 50] [--threads 2]

First it learns to copy random tokens, then stories: two steps with one story a row, one with rows of the full context.
DIR of --out gets tokenizer.json (kept when it exists) and model.pt, written again every minute, so that a run that
is stopped early still leaves a model. The learning rate follows the clock, not a step count: a slower machine makes
fewer steps, and the schedule still ends at its end. For the same reason two runs are never the same bit for bit.
"""
import argparse
import math
import os
import random
import re
import time

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from grammar import MEN, WOMEN
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


def stories(ids, tokens, seed):
    """Endless batches of whole documents, one a row: what a text tells again is to be found in its row.

    The documents of a batch are about equally long, so that little is padded.
    """
    rng = random.Random(seed)
    while True:
        groups = [[]]
        for doc in sorted(ids, key=lambda doc: len(doc) + 8 * rng.random()):
            groups[-1].append(doc)
            if len(groups[-1]) * len(doc) >= tokens:
                groups.append([])
        rng.shuffle(groups)
        yield from filter(None, groups)


def tensors(rows, rare, again_weight):
    """Rows of ids (~id: given, not to be predicted) -> (inputs, targets, weights of the targets; 0 for padding).

    A token that is rare in the corpus and was in the row before is a name, a place, a thing or a number told again.
    These are few, and without a larger weight the model learns all else first, and them never.
    """
    size = max(map(len, rows))
    block, weights = torch.zeros(len(rows), size, dtype=torch.long), torch.zeros(len(rows), size)
    for i, row in enumerate(rows):
        row, position = torch.from_numpy(row.astype(np.int64)), torch.arange(len(row))
        noise, row = row < 0, torch.where(row < 0, ~row, row)
        first = torch.full((len(rare),), size).scatter_reduce_(0, row, position, "amin")
        block[i, : len(row)] = row
        weights[i, : len(row)] = torch.where((first[row] < position) & rare[row], again_weight, 1.0)
        weights[i, : len(row)][noise] = 0
    return block[:, :-1], block[:, 1:], weights[:, 1:]


def copy_task(tokens, rng, length=96):
    """Random tokens, again and again: they can be predicted only by finding them in the row and copying.

    Short periods are easy (most of the row is the answer), and show the way to the long ones.
    """
    rows = np.empty((tokens // length, length + 1), dtype=np.int64)
    weights = torch.zeros(len(rows), length)
    for i in range(len(rows)):
        period = int(2 ** rng.uniform(1, 5.5))
        rows[i] = np.resize(rng.integers(1, Config.vocab, period), length + 1)
        weights[i, period:] = 1
    block = torch.from_numpy(rows)
    return block[:, :-1], block[:, 1:], weights


@torch.no_grad()
def evaluate(model, rows, limit=64):
    """Mean loss in nats per token, and tokens per expert [layers][experts]."""
    model.eval()
    loss, counts, n = 0.0, 0, 0
    for i in range(0, min(limit, len(rows)), 8):
        block = torch.from_numpy(rows[i:min(i + 8, limit)].astype(np.int64))
        l, _, c = model(block[:, :-1], block[:, 1:])
        loss, counts, n = loss + l.mean().item() * len(block), counts + c, n + len(block)
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


@torch.no_grad()
def told_again(model, tokenizer, documents, words):
    """Where a text tells one of `words` again: how often the likeliest tokens are it, and begin any word told before."""
    pattern = re.compile(f" ({'|'.join(words)})\\b")
    right, among, total = 0, 0, 0
    for text in documents:
        code = tokenizer.encode(text)
        ids = code.ids[: model.c.context]
        best = [None] + model(torch.tensor([ids]))[0][0].argmax(-1).tolist()
        told, begins = set(), set()
        for m in pattern.finditer(text):
            span = [i for i, (a, b) in enumerate(code.offsets) if a < m.end() and b > m.start(1)]
            if span[-1] >= len(ids):
                break
            if m[1] in told:
                right += all(best[i] == ids[i] for i in span)
                among, total = among + (best[span[0]] in begins), total + 1
            told.add(m[1])
            begins.add(ids[span[0]])
    return right / total, among / total


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton-Schulz steps (Jordan 2024): all directions of a matrix learn equally fast."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(m, group["momentum"]))
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(x):
    """Moves the singular values of a matrix to about 1."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.T if tall else x


def optimizers_for(model, args):
    """Muon for the attention matrices, where copying is learned; for all experts it would cost a third of the time.

    The rest gets AdamW without decay: it would make rare tokens, such as names, short and alike.
    """
    attention = [p for n, p in model.layers.named_parameters() if p.dim() == 2 and "router" not in n]
    others = [p for n, p in model.layers.named_parameters() if p.dim() != 2 or "router" in n] + [model.norm.weight]
    groups = [{"params": others, "lr": args.lr}, {"params": [model.embed.weight], "lr": args.embed_lr}]
    return [Muon(attention, args.muon_lr), torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


def learning_rate(done):
    """Share of the peak: warm-up over the first 1 % of the time, then a cosine down to 2 %."""
    return min(1.0, max(done / 0.01, 0.05)) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def again_weight(done, args):
    """Falls to 1 after two thirds of the time: a model paid for names told again to the end tells nothing else."""
    return 1 + (args.again_weight - 1) * min(1.0, max(0.0, 7 - 10 * done))


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


def late_start(text, rng):
    """The text from a later sentence of its first half on: a prompt may start as no document does."""
    starts = [m.end() for m in re.finditer(r'[.!?]"? (?=[A-Z"])', text[: len(text) // 2])
              if text.count('"', 0, m.end()) % 2 == 0]
    return text[rng.choice(starts):] if starts else text


class Data:
    """Everything cut into tokens, and the batches of each phase."""

    def __init__(self, args):
        documents = read_documents(os.path.join(args.corpus, "train.txt"))
        path = os.path.join(args.out, "tokenizer.json")
        if not os.path.exists(path):
            train_tokenizer(documents[:20000], Config.vocab).save(path)
        self.args, self.tokenizer = args, Tokenizer.from_file(path)
        self.heldout = read_documents(os.path.join(args.corpus, "heldout.txt"))
        self.heldout_rows = pack(self.tokenizer, self.heldout, Config.context, 0)
        eos = self.tokenizer.token_to_id(SEPARATOR)
        rng = random.Random(args.seed)
        documents = [late_start(d, rng) if rng.random() < 0.15 else d for d in documents]
        ids = [e.ids + [eos] for e in self.tokenizer.encode_batch(documents)]
        counts = np.bincount(np.concatenate(ids), minlength=Config.vocab)
        # After anything strange comes a story all the same: a prompt may be of words that no document has.
        ids = [[~rng.randrange(1, Config.vocab) for _ in range(rng.randrange(1, 25))] + d if rng.random() < 0.06 else d for d in ids]
        ids = [np.array(d[: Config.context + 1], dtype=np.int16) for d in ids]
        self.rare = torch.from_numpy(counts < args.rare * counts.sum())
        self.rng = np.random.default_rng(args.seed)
        self.stories = stories(ids, args.tokens, args.seed)
        self.full = pack(self.tokenizer, rng.sample(documents, 20000), Config.context, args.seed)
        print(f"{len(ids)} documents, {counts.sum()} tokens; {self.rare.sum()} tokens are rare", flush=True)

    def batch(self, done, step):
        """The batch for a step when the share `done` of the time is over."""
        if done < self.args.copy_share:
            return copy_task(self.args.tokens, self.rng)
        if step % 3 == 0:
            rows = self.full[self.rng.integers(len(self.full), size=max(1, self.args.tokens // Config.context))]
        else:
            rows = next(self.stories)
        return tensors(rows, self.rare, again_weight(done, self.args))


def train(args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    data = Data(args)
    model = load(args.continue_from)[0] if args.continue_from else Model(Config())
    look(model, data, 16)
    optimizers = optimizers_for(model, args)
    groups = [g for o in optimizers for g in o.param_groups]
    peaks = [g["lr"] for g in groups]
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)

    start = last_save = last_look = time.time()
    step, seen, mean = 0, 0, None
    while (done := (time.time() - start) / (60 * args.minutes)) < 1:
        x, y, weights = data.batch(done, step)
        for group, peak in zip(groups, peaks):
            group["lr"] = peak * learning_rate(done)
        losses, balance, _ = model(x, y)
        ((losses * weights).sum() / weights.sum() + args.balance * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen = step + 1, seen + int((weights > 0).sum())
        loss = losses.detach()[weights > 0].mean().item()
        mean = loss if mean is None else 0.96 * mean + 0.04 * loss
        now = time.time()
        if step % 50 == 0:
            print(f"{done:5.1%} step {step} tokens {seen} loss {mean:.4f} balance {balance.item():.3f} "
                  f"{seen / (now - start):.0f} tokens/s", flush=True)
        if now - last_save > 60:
            save(model, args, {"steps": step, "tokens": seen, "seconds": now - start, "done": done})
            last_save = now
        if now - last_look > 240:
            look(model, data, 16)
            last_look = time.time()
    note = {"steps": step, "tokens": seen, "seconds": time.time() - start, "done": 1.0}
    save(model, args, note)
    print(note)
    look(model, data, 64)
    print(generate(model, data.tokenizer, "Once upon a time", 0.6))


def look(model, data, rows):
    right, among = told_again(model, data.tokenizer, data.heldout[:2 * rows], MEN + WOMEN)
    print(f"held-out loss {evaluate(model, data.heldout_rows, rows)[0]:.4f}, names told again: {right:.1%} right, "
          f"{among:.1%} a name of the text", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--embed-lr", type=float, default=6e-3)
    parser.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    parser.add_argument("--rare", type=float, default=0.002, help="a token with less than this share of the corpus is rare")
    parser.add_argument("--again-weight", type=float, default=2.0, help="weight of a rare token told again, in the first two thirds")
    parser.add_argument("--copy-share", type=float, default=0.05, help="share of the time, at the start, for copying")
    parser.add_argument("--continue-from", help="start with the weights of this model.pt")
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
