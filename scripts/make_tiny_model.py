#!/usr/bin/env python3
"""Makes deploy/tiny-model: what `make run` serves until it is given a real model.

    python3 scripts/make_tiny_model.py [FOLDER]         (torch and tokenizers as for the goldens)

The tokenizer is real: byte-level BPE with Llama 3's split pattern, trained here on text that this script
makes up. The weights are random: the model speaks in words that follow no thought. It shows that everything
around it works.
"""
import json
import math
import os
import random
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "deploy", "tiny-model")
VOCAB = 1536
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
           "<|spare_0|>", "<|spare_1|>"]
# The pattern that tokenizer.json files of Llama 3 carry: contractions, words with one sign in front, up to
# three digits, runs of signs, line ends, blanks.
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('This model knows the roles system, user and assistant, not ' + message.role) }}
    {%- endif %}
    {%- if message.role == 'system' and not loop.first %}
        {{- raise_exception('A system message must come first') }}
    {%- endif %}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.content is string %}
        {{- message.content | trim }}
    {%- else %}
        {%- for part in message.content %}
            {{- part.text | trim }}
        {%- endfor %}
    {%- endif %}
    {{- '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n' }}
{%- endif %}
"""
README = """\
# A model that knows nothing

`make run` serves this folder when no MODEL is given. The weights are random numbers, so its answers are
random words; the tokenizer, the chat template and the files around them are as real ones are. Use it to see the
server work, not for text.

Made by `scripts/make_tiny_model.py`: a Llama of 4 layers in bfloat16, context 2048, vocabulary 1,536.
"""

NOUNS = """river garden winter letter window engine teacher market bridge forest island kitchen morning
evening station captain mountain village harbour machine paper pocket shadow silver question answer
number reason story picture language problem system server request token memory block batch model weight
layer cache stream client router worker thread queue signal channel packet buffer kernel matrix vector
sentence word page book library music weather summer autumn spring water fire stone bread butter coffee
table chair door wall roof street city country friend mother father sister brother child doctor farmer
sailor painter writer reader singer baker driver king queen horse dog cat bird fish tree flower leaf root
seed apple orange lemon field road train ship boat plane wheel clock lamp candle mirror glass bottle box
key lock rope needle thread coat shoe hat ring coin field measure result test error failure success limit
budget price value change version release report summary list record file folder""".split()
VERBS = """opens closes follows carries remembers forgets answers asks builds breaks mends finds loses
keeps gives takes sends receives reads writes counts measures compares explains describes watches hears
sees knows believes understands begins ends continues returns leaves enters crosses climbs falls rises
turns moves waits runs walks sings paints bakes drives sails plants grows cuts washes lights hides shows
calls thanks helps visits""".split()
ADJECTIVES = """small large quiet loud early late bright dark cold warm heavy light narrow wide deep
shallow quick slow gentle careful careless honest strange common rare simple difficult important useful
empty full open hidden green red blue yellow white black grey golden wooden broken finished careful
patient hungry tired happy""".split()
ADVERBS = """slowly quickly often seldom always never again already almost together alone carefully
quietly yesterday today tomorrow soon later here there everywhere sometimes perhaps therefore however
meanwhile""".split()
JOINS = ["and", "but", "because", "while", "before", "after", "although", "until", "so that", "unless", "if"]
ASKS = ["What is", "Where is", "Why does", "How does", "When will", "Who has seen", "Can you explain",
        "Please describe", "Could you list", "Tell me about", "Do you remember", "I would like to know about"]
OTHERS = [
    "Der kleine Hund läuft über die Straße und sucht seinen Freund.",
    "Wir lesen heute ein schönes Buch über Bäume.",
    "La rivière coule lentement sous le pont près du village.",
    "Où est la clé de la porte, s'il vous plaît ?",
    "El niño escribe una carta larga a su abuela cada año.", "¿Cuántas palabras hay en esta página?",
    "O rio corre devagar até ao mar.", "La città è piccola, però le strade sono larghe.",
    "Маленький корабль медленно идёт по широкой реке.", "Сколько стоит эта книга?",
    "Το μικρό πλοίο περνά κάτω από τη γέφυρα.", "小さな船が川をゆっくり下る。", "今日は天気がいいですね。",
    "小船慢慢地驶过大河。", "今天天气很好。", "작은 배가 강을 천천히 지나간다.", "नदी धीरे धीरे बहती है।",
    "السفينة الصغيرة تعبر النهر ببطء.", "הספינה הקטנה עוברת את הנהר.", "naïve café, jalapeño, Åse, Łódź 🙂🚀✨",
]
CODE = [
    "def {a}_{b}({a}, {b}=None):\n    for i in range(len({a})):\n        if {a}[i] == {b}:\n"
    "            return i\n    return -1\n",
    "int {a}_count(const struct {b} *p, size_t n) {{\n    size_t total = 0;\n"
    "    for (size_t i = 0; i < n; i++)\n        total += p[i].{a};\n    return (int)total;\n}}\n",
    "{{\"{a}\": {n}, \"{b}\": [\"{a}\", \"{b}\"], \"ok\": true, \"rest\": null}}\n",
    "SELECT {a}, COUNT(*) FROM {b} WHERE {a} > {n} GROUP BY {a} ORDER BY {a} DESC LIMIT 10;\n",
    "curl -s http://127.0.0.1:8000/v1/{a} -H 'Content-Type: application/json' -d '{{\"{b}\": {n}}}'\n",
    "<div class=\"{a}\"><a href=\"/{b}/{n}\">{a} {b}</a></div>\n",
]


def sentence(rng):
    def phrase():
        return f"{rng.choice(['the', 'a', 'every', 'this', 'our', 'no'])} " + \
               (f"{rng.choice(ADJECTIVES)} " if rng.random() < 0.5 else "") + rng.choice(NOUNS)
    kind = rng.random()
    if kind < 0.15:
        return f"{rng.choice(ASKS)} {phrase()}?"
    if kind < 0.25:
        return f"On {rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1900, 2050)} there were " \
               f"{rng.randint(2, 99999)} {rng.choice(NOUNS)}s, {rng.random() * 100:.1f}% of them " \
               f"{rng.choice(ADJECTIVES)}."
    text = f"{phrase()} {rng.choice(VERBS)} {phrase()}"
    if kind < 0.6:
        text += f", {rng.choice(JOINS)} {phrase()} {rng.choice(VERBS)} {rng.choice(ADVERBS)}"
    if kind > 0.9:
        text = f"\"{text},\" said {phrase()}, \"it's what I don't know and you'll never see\""
    return text[0].upper() + text[1:] + rng.choice(".....!;")


def corpus():
    rng = random.Random(20260101)
    for i in range(6000):
        if i % 40 == 39:
            yield rng.choice(CODE).format(a=rng.choice(NOUNS), b=rng.choice(NOUNS), n=rng.randint(0, 9999))
        elif i % 25 == 24:
            yield rng.choice(OTHERS)
        elif i % 30 == 29:
            yield "\n".join(f"{k}. {sentence(rng)}" for k in range(1, rng.randint(3, 6))) + "\n\n"
        else:
            yield " ".join(sentence(rng) for _ in range(rng.randint(1, 3)))


def make_tokenizer(folder):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIAL), show_progress=False, min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens(SPECIAL)
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    bos = tok.token_to_id(SPECIAL[0])
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{SPECIAL[0]} $A", pair=f"{SPECIAL[0]} $A {SPECIAL[0]}:1 $B:1",
                                      special_tokens=[(SPECIAL[0], bos)]),
    ])
    tok.save(os.path.join(folder, "tokenizer.json"))
    write_json(folder, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": "<|end|>",
        "clean_up_tokenization_spaces": False, "model_max_length": 2048,
        "model_input_names": ["input_ids", "attention_mask"],
    })
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write(TEMPLATE)
    return tok


def make_weights(folder, config, tok):
    """Scales at which words follow each other in a lively way; special tokens but <|end|> stay improbable."""
    hidden, head_dim, mlp = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    gen = torch.Generator().manual_seed(1)

    def matrix(rows, cols, gain):
        return (torch.randn(rows, cols, generator=gen) * gain / math.sqrt(cols)).to(torch.bfloat16)
    embed = matrix(VOCAB, hidden, 3.0)
    for name in SPECIAL:
        if name != "<|end|>":
            embed[tok.token_to_id(name)] *= 0.3
    ones = torch.ones(hidden, dtype=torch.bfloat16)
    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": ones}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows, cols, gain in [
                ("self_attn.q_proj", q, hidden, 1.5), ("self_attn.k_proj", kv, hidden, 1.5),
                ("self_attn.v_proj", kv, hidden, 1.0), ("self_attn.o_proj", hidden, q, 1.0),
                ("mlp.gate_proj", mlp, hidden, 1.5), ("mlp.up_proj", mlp, hidden, 1.5),
                ("mlp.down_proj", hidden, mlp, 1.0)]:
            tensors[f"{at}{name}.weight"] = matrix(rows, cols, gain)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = ones.clone()
    path = os.path.join(folder, "model.safetensors")
    save_file(tensors, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else OUT
    os.makedirs(folder, exist_ok=True)
    tok = make_tokenizer(folder)
    eos = [tok.token_to_id("<|end|>"), tok.token_to_id("<|end_of_text|>")]
    bos = tok.token_to_id("<|begin_of_text|>")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "attention_bias": False, "mlp_bias": False, "bos_token_id": bos, "eos_token_id": eos,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    write_json(folder, "config.json", config)
    write_json(folder, "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": eos, "do_sample": True, "temperature": 0.7, "top_p": 0.95,
        "max_new_tokens": 256,
    })
    make_weights(folder, config, tok)
    with open(os.path.join(folder, "README.md"), "w") as f:
        f.write(README)
    total = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"{folder}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
