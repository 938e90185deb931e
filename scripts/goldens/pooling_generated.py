#!/usr/bin/env python3
"""Makes tests/golden/pooling/generated: what transformers computes with tiny models whose weights are not stored.

    python3 scripts/goldens/pooling_generated.py        (torch and transformers as pinned for the goldens)

    models.json   for each model its config and the shapes of its tensors, those of all layers once, as ".*.";
                  tests/support/tiny_weights.py fills them
    NAME.i16      for every text of ../texts.json what a server answers by default: the normalised embedding of the first
                  (encoders) or last token, or the labels' probabilities; packed as tiny_weights.pack does
"""
import json
import pathlib
import re
import sys

import tokenizers
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
import tiny_weights  # noqa: E402

POOLING = ROOT / "tests/golden/pooling"
ENC = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=120,
           max_position_embeddings=98)
DEC = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40,
           vocab_size=120, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
ROBERTA = dict(ENC, type_vocab_size=1)
GEMMA = dict(DEC, head_dim=8, query_pre_attn_scalar=10, sliding_window=24)
MODERN = dict(ENC, num_hidden_layers=4, local_attention=12, pad_token_id=0, bos_token_id=1, eos_token_id=2,
              cls_token_id=1, sep_token_id=2)

# name: class, config class, its arguments
MODELS = {
    "xlmr-embed": ("XLMRobertaModel", "XLMRobertaConfig", ROBERTA),
    "roberta-labels": ("RobertaForSequenceClassification", "RobertaConfig", dict(ROBERTA, num_labels=3)),
    "roberta-score": ("RobertaForSequenceClassification", "RobertaConfig", dict(ROBERTA, num_labels=1)),
    "modernbert-embed": ("ModernBertModel", "ModernBertConfig", MODERN),
    "llama-labels": ("LlamaForSequenceClassification", "LlamaConfig", dict(DEC, num_labels=2)),
    "llama-reward": ("LlamaForSequenceClassification", "LlamaConfig", dict(DEC, num_labels=1)),
    "mistral-embed": ("MistralModel", "MistralConfig", dict(DEC, sliding_window=24)),
    "mistral-labels": ("MistralForSequenceClassification", "MistralConfig", dict(DEC, sliding_window=24, num_labels=2)),
    "qwen2-embed": ("Qwen2Model", "Qwen2Config", DEC),
    "qwen2-labels": ("Qwen2ForSequenceClassification", "Qwen2Config", dict(DEC, num_labels=3)),
    "qwen3-embed": ("Qwen3Model", "Qwen3Config", dict(DEC, head_dim=16)),
    "gemma2-embed": ("Gemma2Model", "Gemma2Config", GEMMA),
    "gemma2-labels": ("Gemma2ForSequenceClassification", "Gemma2Config", dict(GEMMA, num_labels=2)),
    "gemma3-embed": ("Gemma3TextModel", "Gemma3TextConfig", dict(GEMMA, num_hidden_layers=3)),
    "gemma3-labels": ("Gemma3TextForSequenceClassification", "Gemma3TextConfig",
                      dict(GEMMA, num_hidden_layers=3, num_labels=2)),
}


def folded(shapes, n_layers):
    """One entry for a tensor that all layers have, in one shape."""
    out = {}
    for name, shape in shapes.items():
        star = re.sub(r"\b(layers?)\.\d+\.", r"\1.*.", name)
        same = all(shapes.get(star.replace("*", str(i))) == shape for i in range(n_layers))
        out[star if same else name] = shape
    return out


def answer(model, encoder, labels, ids):
    ids = torch.tensor([ids])
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    if labels:
        return torch.sigmoid(out.logits[0]) if labels == 1 else torch.softmax(out.logits[0], 0)
    h = out.last_hidden_state[0, 0 if encoder else -1]
    return h / h.norm()


def main():
    out = POOLING / "generated"
    out.mkdir(exist_ok=True)
    texts = json.loads((POOLING / "texts.json").read_text())
    tok = tokenizers.Tokenizer.from_file(str(POOLING / "llama-embed/tokenizer.json"))
    ids = [tok.encode(t).ids for t in texts]
    described = {}
    for name, (cls, config_cls, spec) in MODELS.items():
        config = getattr(transformers, config_cls)(**spec)
        config._attn_implementation = "eager"
        model = getattr(transformers, cls)(config).eval()
        state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
        shapes = {k: list(v.shape) for k, v in state.items()}
        model.load_state_dict({k: torch.from_numpy(tiny_weights.tensor(k, s)) for k, s in shapes.items()}, strict=False)
        config.architectures = [cls]
        described[name] = {"config": json.loads(config.to_json_string()), "tensors": folded(shapes, config.num_hidden_layers)}
        assert tiny_weights.unfolded(described[name]["tensors"], config.num_hidden_layers) == shapes
        with torch.no_grad():
            rows = [answer(model, "num_key_value_heads" not in spec, spec.get("num_labels", 0), x) for x in ids]
        (out / f"{name}.i16").write_bytes(tiny_weights.pack(torch.stack(rows).numpy()))
        print(name, [round(float(x), 3) for x in rows[-1][:4]])
    (out / "models.json").write_text("{" + ",\n".join(
        f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in described.items()) + "}\n")


if __name__ == "__main__":
    main()
