"""Writes the trained model as a GGUF file, and checks such a file.

    python3 export.py --model DIR [--out tavern-qwen3moe.gguf]
    python3 export.py --check [--model DIR] [--out tavern-qwen3moe.gguf] [--corpus DIR]

The check reads the file back and needs nothing of the writer: the dequantised weights go through Hugging Face's
Qwen3MoeForCausalLM and must give the logits of model.py; the file's tokens and merges must give the ids of the
tokenizer they came from. It writes nothing.
"""
import argparse
import json
import os

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from model import Config, Model
from train import QWEN2, SEPARATOR, load, read_documents

HERE = os.path.dirname(os.path.abspath(__file__))
Q8_0, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32

# GGUF name -> name in model.py. The router stays F32: it is small, and rounding it would change which expert runs.
GLOBAL_NAMES = {"token_embd": "embed.weight", "output_norm": "norm.weight"}
LAYER_NAMES = {
    "attn_norm": "attn_norm.weight", "attn_q": "q.weight", "attn_k": "k.weight", "attn_v": "v.weight",
    "attn_q_norm": "q_norm.weight", "attn_k_norm": "k_norm.weight", "attn_output": "o.weight",
    "ffn_norm": "ffn_norm.weight", "ffn_gate_inp": "experts.router.weight", "ffn_gate_exps": "experts.gate",
    "ffn_up_exps": "experts.up", "ffn_down_exps": "experts.down"}


def tensor_names(config):
    """(GGUF name, name in model.py) of every tensor; no output.weight, the output is tied to token_embd."""
    for name, ours in GLOBAL_NAMES.items():
        yield name + ".weight", ours
    for n in range(config.layers):
        for name, ours in LAYER_NAMES.items():
            yield f"blk.{n}.{name}.weight", f"layers.{n}.{ours}"


def type_of(name, array):
    return F32 if array.ndim == 1 or "ffn_gate_inp" in name else Q8_0


def add_settings(w, c):
    w.add_type("model")
    w.add_name("Tavern Tales")
    w.add_description("A small mixture-of-experts model that tells tavern tales, trained from scratch on a made-up corpus")
    w.add_license("MIT")
    w.add_size_label("8x0.6M")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_block_count(c.layers)
    w.add_context_length(c.context)
    w.add_embedding_length(c.hidden)
    w.add_feed_forward_length(c.expert_width)
    w.add_expert_feed_forward_length(c.expert_width)
    w.add_expert_count(c.experts)
    w.add_expert_used_count(c.top_k)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.eps)
    w.add_rope_freq_base(c.rope_base)
    w.add_rope_dimension_count(c.head_dim)
    w.add_vocab_size(c.vocab)


def add_tokenizer(w, path, vocab):
    with open(path, encoding="utf-8") as f:
        bpe = json.load(f)["model"]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    if len(tokens) != vocab:
        raise SystemExit(f"the tokenizer has {len(tokens)} tokens, the model {vocab}")
    eos = bpe["vocab"][SEPARATOR]
    types = [gguf.TokenType.CONTROL if i == eos else gguf.TokenType.NORMAL for i in range(vocab)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]])
    w.add_eos_token_id(eos)
    w.add_bos_token_id(eos)
    w.add_pad_token_id(eos)
    w.add_add_bos_token(False)


def export(args):
    model, note = load(os.path.join(args.model, "model.pt"))
    temporary = args.out + ".tmp"
    w = gguf.GGUFWriter(temporary, "qwen3moe")
    add_settings(w, model.c)
    add_tokenizer(w, os.path.join(args.model, "tokenizer.json"), model.c.vocab)
    weights = model.state_dict()
    for name, ours in tensor_names(model.c):
        array = weights[ours].numpy().astype(np.float32)
        kind = type_of(name, array)
        w.add_tensor(name, array if kind == F32 else quantize(array, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(temporary, args.out)  # readers see the old file or the new one, never half of one
    print(f"{os.path.basename(args.out)}: {os.path.getsize(args.out)} bytes, trained on {note['tokens']} tokens")


def read(path):
    """A GGUF file -> (model.py's model with the dequantised weights, the file's fields as plain values)."""
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    get = lambda key: fields["qwen3moe." + key]
    c = Config(vocab=get("vocab_size"), hidden=get("embedding_length"), layers=get("block_count"), heads=get("attention.head_count"),
               kv_heads=get("attention.head_count_kv"), head_dim=get("attention.key_length"), experts=get("expert_count"),
               top_k=get("expert_used_count"), expert_width=get("expert_feed_forward_length"), context=get("context_length"),
               eps=get("attention.layer_norm_rms_epsilon"), rope_base=get("rope.freq_base"))
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    model = Model(c)
    model.load_state_dict({ours: torch.from_numpy(np.array(tensors.pop(name))) for name, ours in tensor_names(c)})
    if tensors:
        raise SystemExit(f"tensors without a place: {sorted(tensors)}")
    return model, fields


def tokenizer_of(fields):
    """A tokenizer made of nothing but the file's tokens and merges."""
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    t = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(m.split(" ", 1)) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([SEPARATOR])
    return t


def hugging_face(model):
    """The same weights in transformers' Qwen3MoeForCausalLM."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
    c = model.c
    hf = Qwen3MoeForCausalLM(Qwen3MoeConfig(
        vocab_size=c.vocab, hidden_size=c.hidden, intermediate_size=c.expert_width, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, max_position_embeddings=c.context,
        rms_norm_eps=c.eps, rope_parameters={"rope_type": "default", "rope_theta": c.rope_base}, tie_word_embeddings=True,
        num_experts=c.experts, num_experts_per_tok=c.top_k, moe_intermediate_size=c.expert_width, decoder_sparse_step=1,
        norm_topk_prob=True, mlp_only_layers=[])).eval()
    ours, theirs = model.state_dict(), {}
    theirs["model.embed_tokens.weight"] = theirs["lm_head.weight"] = ours["embed.weight"]
    theirs["model.norm.weight"] = ours["norm.weight"]
    for n in range(c.layers):
        a, b = f"layers.{n}.", f"model.layers.{n}."
        theirs[b + "input_layernorm.weight"] = ours[a + "attn_norm.weight"]
        theirs[b + "post_attention_layernorm.weight"] = ours[a + "ffn_norm.weight"]
        for x in "qkvo":
            theirs[f"{b}self_attn.{x}_proj.weight"] = ours[f"{a}{x}.weight"]
        for x in "qk":
            theirs[f"{b}self_attn.{x}_norm.weight"] = ours[f"{a}{x}_norm.weight"]
        theirs[b + "mlp.gate.weight"] = ours[a + "experts.router.weight"]
        theirs[b + "mlp.experts.gate_up_proj"] = torch.cat((ours[a + "experts.gate"], ours[a + "experts.up"]), 1)
        theirs[b + "mlp.experts.down_proj"] = ours[a + "experts.down"]
    hf.load_state_dict(theirs)
    return hf


@torch.no_grad()
def check(args):
    model, fields = read(args.out)
    tokenizer = tokenizer_of(fields)
    texts = ["Once upon a time, in the town of Harrow, there was a tavern called the Gilded Goose.",
             "Mira the innkeeper: \"Welcome! It's 12 coins -- or 3?\"\n\nTobin:\t'Zürich, 東京'   and\r\n trailing  "]
    if args.corpus:
        texts += read_documents(os.path.join(args.corpus, "heldout.txt"))
    if args.model:
        original = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
        for text in texts:
            if original.encode(text).ids != tokenizer.encode(text).ids or tokenizer.decode(tokenizer.encode(text).ids) != text:
                raise SystemExit(f"tokenizer differs on: {text!r}")
        print(f"tokenizer: {len(texts)} texts give the same ids, and decode to themselves")

    ids = torch.tensor([(tokenizer.encode("\n".join(texts)).ids * model.c.context)[: model.c.context]])
    ours, theirs = model(ids)[0], hugging_face(model)(ids).logits
    difference = (ours - theirs).abs().max().item()
    print(f"logits: largest difference to transformers {difference:.2e} over {ids.numel()} positions, largest logit {ours.abs().max():.2f}")
    if difference > 1e-3:
        raise SystemExit("the logits differ")
    if args.model:
        trained = load(os.path.join(args.model, "model.pt"))[0](ids)[0]
        same = (trained.argmax(-1) == ours.argmax(-1)).float().mean().item()
        print(f"quantisation: mean logit difference {(trained - ours).abs().mean():.4f}, same best token at {same:.1%} of positions")
    print("check passed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="the folder train.py wrote")
    parser.add_argument("--out", default=os.path.join(HERE, "tavern-qwen3moe.gguf"))
    parser.add_argument("--corpus", help="also check the tokenizer on this corpus's held-out part")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        check(args)
    elif args.model:
        export(args)
    else:
        parser.error("--model is needed to export")


if __name__ == "__main__":
    main()
