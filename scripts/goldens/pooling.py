#!/usr/bin/env python3
"""Makes tests/golden/pooling: tiny random models that pool, and what Hugging Face transformers computes with them.

    python3 scripts/goldens/pooling.py [NAME ...]        (torch and transformers as pinned for the goldens)

Each folder is a model as a user would have it (config.json, model.safetensors, for some the files of
sentence-transformers) plus
  golden.json    texts as token ids and token types
  hidden.f32     final hidden states, little-endian f32, a row for each token, texts in order
  pooled.f32     a row for each text: raw outputs of the labels' head, or the embedding
  tokenizer.json a WordPiece tokenizer of letters and a few words
  texts.f32      likewise for every text of texts.json: 200 of them, of every length up to the limit; what a server
                 answers by default: normalised, or with the labels' activation. Of normalised embeddings texts.i16,
                 packed as tiny_weights.pack does
and the folder with the score has pairs.f32: of text i with text i + 1.
"""
import copy
import json
import os
import shutil
import sys

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "support"))
import tiny_weights  # noqa: E402

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "pooling")
LENGTHS = [1, 2, 7, 16, 33, 90]
ENC = dict(hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=52, vocab_size=120)
DEC = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64,
           vocab_size=120, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)

MODELS = {
    # sentence-transformers' usual chain, with a dense layer in it.
    "bert-embed": dict(cls="BertModel", config="BertConfig", **ENC, max_position_embeddings=96,
                       modules=["Pooling:mean", "Dense:40:Tanh", "Normalize"]),
    "bert-labels": dict(cls="BertForSequenceClassification", config="BertConfig", **ENC, max_position_embeddings=96,
                        num_labels=3),
    # Positions begin behind the padding id; one label, as a reranker has.
    "xlmr-score": dict(cls="XLMRobertaForSequenceClassification", config="XLMRobertaConfig", **ENC,
                       max_position_embeddings=98, type_vocab_size=1, num_labels=1),
    "roberta-embed": dict(cls="RobertaModel", config="RobertaConfig", **ENC, max_position_embeddings=98,
                          type_vocab_size=1, modules=["Pooling:cls+mean"]),
    "mpnet-embed": dict(cls="MPNetModel", config="MPNetConfig", **ENC, max_position_embeddings=98,
                        modules=["Pooling:max", "Normalize"]),
    "modernbert-labels": dict(cls="ModernBertForSequenceClassification", config="ModernBertConfig",
                              **dict(ENC, num_hidden_layers=4), max_position_embeddings=96, local_attention=12,
                              classifier_pooling="mean", num_labels=4, norm_bias=True, mlp_bias=True, pad_token_id=0,
                              bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
    "llama-embed": dict(cls="LlamaModel", config="LlamaConfig", **DEC),
    "qwen3-labels": dict(cls="Qwen3ForSequenceClassification", config="Qwen3Config", **DEC, head_dim=16, num_labels=2),
}


def init_weights(model, seed):
    """Noise large enough that attention is uneven and every part matters; in values that bf16 holds, as they are stored:
    what is computed from them is computed in f32."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name.lower() and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.2 * noise)
            elif "embed" in name or "relative" in name:
                p.copy_(0.7 * noise)
            else:
                p.copy_(noise * 1.4 / p.shape[1] ** 0.5)
            p.copy_(p.to(torch.bfloat16).float())


def write_modules(folder, modules, hidden, gen):
    """modules.json and the folders it names. Returns a function from hidden states to an embedding."""
    listed = [dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer")]
    steps = []
    width = hidden
    for i, m in enumerate(modules, 1):
        kind, *args = m.split(":")
        path = f"{i}_{kind}"
        listed.append(dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{kind}"))
        os.makedirs(os.path.join(folder, path), exist_ok=True)
        if kind == "Pooling":
            modes = args[0].split("+")
            words = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}
            config = dict(word_embedding_dimension=hidden, **{w: k in modes for k, w in words.items()})
            take = {"cls": lambda h: h[0], "mean": lambda h: h.mean(0), "max": lambda h: h.max(0).values}
            order = [k for k in ("cls", "max", "mean") if k in modes]
            steps.append(lambda h, order=order: torch.cat([take[k](h) for k in order]))
            width = hidden * len(modes)
        elif kind == "Dense":
            n = int(args[0])
            w, b = torch.randn(n, width, generator=gen) / width ** 0.5, torch.randn(n, generator=gen) * 0.2
            config = dict(in_features=width, out_features=n, bias=True,
                          activation_function=f"torch.nn.modules.activation.{args[1]}")
            save_file({"linear.weight": w, "linear.bias": b}, os.path.join(folder, path, "model.safetensors"))
            steps.append(lambda x, w=w, b=b: torch.tanh(w @ x + b))
            width = n
        else:
            config = None
            steps.append(lambda x: x / x.norm())
        if config:
            with open(os.path.join(folder, path, "config.json"), "w") as f:
                json.dump(config, f)
        else:
            os.rmdir(os.path.join(folder, path))
    with open(os.path.join(folder, "modules.json"), "w") as f:
        json.dump(listed, f)

    def run(h):
        for s in steps:
            h = s(h)
        return h
    return run


def word_tokenizer(n_vocab, typed=True):
    """WordPiece over letters: every text of small letters has ids, and words have several ways to be cut."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(97 + i) for i in range(26)]
    vocab += ["##" + chr(97 + i) for i in range(26)]
    words = "the of and to in is that it was for on are as with his they at be this have from or one had by word but not"
    for w in words.split():
        vocab.append(w)
    for w in ["##ing", "##ed", "##er", "##ly", "##tion", ".", ",", "?", "!", "re", "un", "##s"]:
        vocab.append(w)
    vocab = list(dict.fromkeys(vocab))[:n_vocab]
    t = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token="[UNK]"))
    t.normalizer = tokenizers.normalizers.BertNormalizer()
    t.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    t.decoder = tokenizers.decoders.WordPiece()
    t.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    t.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1" if typed else "[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return t


def make_texts(t, limit, n=200):
    """Texts of 1 token (beside the special ones) to the limit."""
    gen = torch.Generator().manual_seed(3)
    words = [w for w in t.get_vocab() if w.isalpha()]
    words.sort()
    texts = []
    for i in range(n):
        want = 1 + i * (limit - 3) // (n - 1)
        text = ""
        while True:
            longer = (text + " " + words[int(torch.randint(len(words), (1,), generator=gen))]).strip()
            if len(t.encode(longer).ids) > want + 2 and text:
                break
            text = longer
            if len(t.encode(text).ids) >= want + 2:
                break
        texts.append(text)
    return texts


def run_text(model, body, run, labels, typed, ids, types):
    """What a server answers for these ids by default."""
    kw = dict(token_type_ids=torch.tensor([types])) if typed else {}
    ids = torch.tensor([ids])
    if labels:
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), **kw).logits[0]
        return torch.sigmoid(out) if labels == 1 else torch.softmax(out, 0)
    h = body(input_ids=ids, attention_mask=torch.ones_like(ids), **kw).last_hidden_state[0]
    return run(h) if run else h[-1] / h[-1].norm()


def make(name, spec, t, texts):
    spec = dict(spec)
    cls, config_cls, modules = spec.pop("cls"), spec.pop("config"), spec.pop("modules", None)
    labels = spec.get("num_labels", 0)
    torch.manual_seed(0)
    config = getattr(transformers, config_cls)(**spec)
    config._attn_implementation = "eager"
    model = getattr(transformers, cls)(config).eval()
    init_weights(model, sum(map(ord, name)))
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    # A decoder's K and V are kept in the type of its weights: f32, so that nothing is rounded on the way.
    stored = torch.float32 if "num_key_value_heads" in spec else torch.bfloat16
    copy.deepcopy(model).to(stored).save_pretrained(folder)
    os.path.exists(os.path.join(folder, "generation_config.json")) and os.remove(
        os.path.join(folder, "generation_config.json"))
    gen = torch.Generator().manual_seed(7)
    run = write_modules(folder, modules, config.hidden_size, gen) if modules else None
    typed = getattr(config, "type_vocab_size", 0) == 2
    given, hidden, pooled = [], [], []
    body = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        for n in LENGTHS:
            ids = torch.randint(3, spec["vocab_size"], (n,), generator=gen)
            types = (torch.arange(n) > n // 2).long() if typed else torch.zeros(n).long()
            kw = dict(token_type_ids=types[None]) if typed else {}
            h = body(input_ids=ids[None], attention_mask=torch.ones(1, n), **kw).last_hidden_state[0]
            hidden.append(h.numpy())
            if labels:
                out = model(input_ids=ids[None], attention_mask=torch.ones(1, n), **kw).logits[0]
            elif run:
                out = run(h)
            else:
                out = h[-1] / h[-1].norm()
            pooled.append(out.numpy())
            given.append(dict(tokens=ids.tolist(), types=types.tolist()))
    with open(os.path.join(folder, "golden.json"), "w") as f:
        json.dump(dict(texts=given), f)
    np.concatenate(hidden).astype("<f4").tofile(os.path.join(folder, "hidden.f32"))
    np.stack(pooled).astype("<f4").tofile(os.path.join(folder, "pooled.f32"))
    if not typed:
        t = word_tokenizer(spec["vocab_size"], typed=False)
    t.save(os.path.join(folder, "tokenizer.json"))
    with torch.no_grad():
        encoded = [t.encode(x) for x in texts]
        rows = [run_text(model, body, run, labels, typed, e.ids, e.type_ids).numpy() for e in encoded]
        if not labels and np.abs(np.stack(rows)).max() <= 1:
            with open(os.path.join(folder, "texts.i16"), "wb") as f:
                f.write(tiny_weights.pack(np.stack(rows)))
        else:
            np.stack(rows).astype("<f4").tofile(os.path.join(folder, "texts.f32"))
        if labels == 1:
            short = texts[:60]
            both = [t.encode(a, b) for a, b in zip(short, short[1:])]
            rows = [run_text(model, body, run, labels, typed, e.ids, e.type_ids).numpy() for e in both]
            np.stack(rows).astype("<f4").tofile(os.path.join(folder, "pairs.f32"))
    print(name, [round(float(x), 3) for x in pooled[-1][:5]])


def main():
    t = word_tokenizer(ENC["vocab_size"])
    texts = make_texts(t, 90)
    with open(os.path.join(OUT, "texts.json"), "w") as f:
        json.dump(texts, f, indent=0)
    for name, spec in MODELS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            make(name, spec, t, texts)


if __name__ == "__main__":
    main()
