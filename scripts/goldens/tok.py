#!/usr/bin/env python3
"""tok.py: trains small tokenizers and writes what they make of 20,000 strings.

Families: gpt2, llama3, qwen2, and those of tok_kinds.py: the split pattern, normaliser, post-processor and
special tokens are as those families have them; vocabulary and merges are trained here, on text that this
script makes up from its own word lists. The strings follow from seeds; the library's trainers break ties at
random, so vocabularies of another run differ in places, and each is committed with its own digests.

Writes, under tests/golden/tok:
  strings.bin               the strings, shared by the families
  FAMILY/tokenizer.json     and tokenizer_config.json
  FAMILY/tokenizer.model    for those that SentencePiece trains
  FAMILY/expect.bin         digests of what the Hugging Face library returns
  FAMILY/pairs.bin          the same for pairs of strings (tok_kinds.py's families)

strings.bin: "WTS1", u32 count, then for each string a varint number of parts; each part is a varint
repeat count, a varint length, and that many bytes. The string is each part repeated, one after another.
expect.bin: "WTE2", u32 count, then for each string two u16: the first two bytes (little-endian) of the
SHA-256 of its ids (each u32 little-endian; string i is encoded with special tokens when i is odd), and of
a decoding's UTF-8: of the ids (special tokens skipped when i % 4 == 1) when i is odd, of the ids in reverse
order when i is even. Last come 64 bytes: the SHA-256 of all ids of all strings, and of all those decodings.
pairs.bin: "WTP1", u32 count, then for each pair (string 2 i, string 2 i + 1) a u16 like those, of its ids and
then its token types, by the pair template.

Usage: python3 scripts/goldens/tok.py [--again | FAMILY...]   (all families without arguments; --again: only
strings and digests, for the tokenizers that are there. Needs tokenizers==0.23.3 and sentencepiece==0.2.3; the committed files were made by Python 3.11, whose Unicode categories choose some of
the strings)
"""
import hashlib
import json
import random
import struct
import sys
import unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tok_kinds

PINNED = "0.23.3"
OUT = Path(__file__).resolve().parent.parent.parent / "tests" / "golden" / "tok"
N_STRINGS = 20000
N_PAIRS = 2000
VOCAB = 4000

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

WORDS = """harbour lantern meadow quiet river stone window garden winter morning letter mountain paper bridge
copper thunder village engine silver orchard candle feather ocean market shadow travel kitchen whisper anchor
the a of to and in that it was for on with as his her they at be this had not are but from or have an which you
one were all their there we when who will more no if out so what up about into than them can only other new some
time could these two may first then do any like my over such our man me even most made after also did many before
must through back years where much your way well down should because each just those people how too little state
good very make world still own see men work long here get both between life being under never day same another
know while last might us great old year off come since against go came right used take three computer number
weather measure language question answer system temperature water energy music history science kindness running
walked thinking builders openly carefully remarkable understanding unfortunately international""".split()
FOREIGN = ["Straße größer schöne Übung", "être déjà naïve garçon œuvre", "mañana niño corazón árbol", "что делать сегодня вечером",
           "где находится библиотека", "καλημέρα κόσμε θάλασσα", "שלום עולם טוב", "مرحبا بالعالم اليوم", "नमस्ते दुनिया आज",
           "สวัสดีชาวโลก", "你好世界今天天气很好", "日本語の文章を書く", "안녕하세요 세계 좋은 아침", "გამარჯობა მსოფლიო", "բարեւ աշխարհ",
           "የዓለም ሰላም", "chào thế giới buổi sáng", "dobrý den světe", "günaydın dünya", "labas pasauli ąčęėįšųūž"]
CODE = ["for (int i = 0; i < n; i++) {\n    total += values[i];\n}\n", "def area(width, height):\n    return width * height\n",
        'if (ptr == NULL) {\n\t\treturn -1;\n\t}\n', "struct point {\n    double x, y;\n};\n", "#include <stdio.h>\n\n",
        'printf("%d items\\n", count);\n', "const result = await load(url, { retries: 3 });\n", "SELECT name, id FROM users WHERE age > 30;\n",
        "import sys\n\nclass Node:\n    def __init__(self, left=None):\n        self.left = left\n", '{"key": [1, 2.5, null], "flag": true}\n',
        "while True:\n        break\n", "// see https://example.org/path?x=1&y=2\n", "fn main() -> Result<(), Error> {\n    Ok(())\n}\n", "x != y && !(a || b)\n"]
EMOJI = ["😀", "🎉", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇫🇷", "🇯🇵", "1️⃣", "❤️", "🧑🏿‍🚀", "☕", "✨", "🫠", "👨‍💻", "🤷‍♀️"]
SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "\v", "\f", "   ", " \n ", "\u1680", "\u200b", "\ufeff"]


_syllables = [a + b + c for a in "b c d f g h j k l m n p r s t v w st tr pl ch sh".split() for b in "a e i o u ai ou".split()
              for c in ["", "", "n", "r", "s", "l"]]
_rng = random.Random(3)
INVENTED = ["".join(_rng.choice(_syllables) for _ in range(_rng.randint(1, 4))) for _ in range(3000)]


def sentence(rng):
    words = [rng.choice(WORDS if rng.random() < 0.75 else INVENTED) for _ in range(rng.randint(3, 14))]
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] += rng.choice(["'s", "'t", "'re", "'ll", "'ve", "'d", "'m", "-like", "ing", "s"])
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), str(rng.randint(0, 10 ** rng.randint(1, 7))))
    text = " ".join(words)
    return text[0].upper() + text[1:] + rng.choice([".", ".", "!", "?", ",", ";", "...", ":"])


def corpus():
    rng = random.Random(1)
    for _ in range(6000):
        kind = rng.random()
        if kind < 0.6:
            yield " ".join(sentence(rng) for _ in range(rng.randint(1, 5)))
        elif kind < 0.8:
            yield "".join(rng.choice(CODE) for _ in range(rng.randint(1, 6)))
        elif kind < 0.95:
            yield rng.choice(FOREIGN) + rng.choice([" ", "\n", ", "]) + rng.choice(FOREIGN)
        else:
            yield " ".join(rng.choice(EMOJI) for _ in range(rng.randint(1, 6))) + "=" * rng.randint(0, 40) + " " * rng.randint(0, 30)


# ---- families ----


def byte_level(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def trained(family):
    tok = Tokenizer(models.BPE(ignore_merges=family == "llama3"))
    if family == "gpt2":
        tok.pre_tokenizer = byte_level(regex=True)
    else:
        split = pre_tokenizers.Split(Regex(LLAMA3 if family == "llama3" else QWEN2), "isolated", invert=False)
        tok.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level()])
    if family == "qwen2":
        tok.normalizer = normalizers.NFC()
    tok.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>"] if family == "gpt2" else []
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def special(*names, **flags):
    return [AddedToken(n, special=True, normalized=False, **flags) for n in names]


def plain(*names, **flags):
    return [AddedToken(n, special=False, **{"normalized": False, **flags}) for n in names]


def build(family):
    """A tokenizer of the family, and its tokenizer_config.json."""
    tok = trained(family)
    if family == "gpt2":
        # Beyond what GPT-2 has: every flag of added tokens occurs once.
        tok.add_tokens(special("<mask>", lstrip=True) + special("<end>", rstrip=True) + plain("<both>", lstrip=True, rstrip=True))
        tok.add_tokens(plain("wordy", single_word=True) + plain("  ", "    ", "        ") + plain("<n>", normalized=True))
        tok.post_processor = processors.ByteLevel(trim_offsets=False)
        return tok, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "clean_up_tokenization_spaces": True}
    if family == "llama3":
        names = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
                 "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
        tok.add_special_tokens(special(*names))
        tok.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                          special_tokens=[(names[0], tok.token_to_id(names[0]))])])
        return tok, {"bos_token": names[0], "eos_token": {"__type": "AddedToken", "content": "<|eot_id|>"},
                     "clean_up_tokenization_spaces": True}
    tok.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tok.add_tokens(plain("<tool_call>", "</tool_call>", "<think>", "</think>"))
    tok.add_tokens(plain("Ångström", normalized=True) + [AddedToken("<|é|>", special=True, normalized=True)])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok, {"bos_token": None, "eos_token": "<|im_end|>", "clean_up_tokenization_spaces": False}


# ---- strings ----

SPECIALS = ["<|endoftext|>", "<mask>", "<end>", "<both>", "wordy", "  ", "    ", "<n>", "<|begin_of_text|>", "<|eot_id|>",
            "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>",
            "<think>", "</think>", "Ångström", "A\u030angstro\u0308m", "<|é|>", "<|e\u0301|>", "<|im_", "start|>", "<|", "|>", "<", "endoftext",
            "[CLS]", "[SEP]", "[MASK]", "[mask]", "[UNK]", "[Ent]", "[ENT]", "Naïve-Bayes", "naive-bayes", "NAI\u0308VE-BAYES", "<s>", "</s>",
            "<unk>", "<pad>", "<mask>", "<0x41>", "<0x0A>", "\u2581", "\u2581the", "[INST]", "[/INST]", "<start_of_turn>", "##ing"]
BY_CATEGORY = {}
for _c in range(0x110000):
    BY_CATEGORY.setdefault(unicodedata.category(chr(_c)), []).append(_c)
LETTERS = [c for k in ("Lu", "Ll", "Lt", "Lm", "Lo") for c in BY_CATEGORY[k]]
MARKS = [c for k in ("Mn", "Mc", "Me") for c in BY_CATEGORY[k]]
NUMBERS = [c for k in ("Nd", "Nl", "No") for c in BY_CATEGORY[k]]
OTHERS = [c for k in ("Po", "Sm", "So", "Sk", "Sc", "Cf", "Pd", "Ps", "Pe", "Pc", "Pi", "Pf") for c in BY_CATEGORY[k]]
COMPAT = [c for c in range(0x110000) if unicodedata.decomposition(chr(c)).startswith("<")]
UPPER = [c for k in ("Lu", "Lt") for c in BY_CATEGORY[k]]
COMPOSED = [c for c in range(0x110000) if unicodedata.decomposition(chr(c)) and not unicodedata.decomposition(chr(c)).startswith("<")]


def text_script(rng):
    """Words of letters that stand near each other in Unicode: one script or block."""
    out = []
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(LETTERS))
        near = LETTERS[max(0, at - 20) : at + 20]
        out.append("".join(chr(rng.choice(near)) for _ in range(rng.randint(1, 8))))
    return rng.choice([" ", "", "-", "\n"]).join(out)


def text_any(rng):
    kinds = [lambda: rng.randrange(0x110000), lambda: rng.randrange(0x10000), lambda: rng.randrange(0x3000), lambda: rng.choice(NUMBERS),
             lambda: rng.choice(BY_CATEGORY["Cn"]), lambda: rng.choice(BY_CATEGORY["Co"]), lambda: rng.choice(OTHERS), lambda: rng.choice(MARKS)]
    points = [rng.choice(kinds)() for _ in range(rng.randint(1, 12))]
    return "".join(" " if 0xD800 <= c < 0xE000 else chr(c) for c in points)


def text_marks(rng):
    out = ""
    for _ in range(rng.randint(1, 6)):
        kind = rng.random()
        if kind < 0.35:
            out += unicodedata.normalize("NFD", chr(rng.choice(COMPOSED)))
        elif kind < 0.5:
            out += chr(rng.choice(COMPOSED))
        elif kind < 0.65:
            out += "".join(chr(rng.choice([rng.randrange(0x1100, 0x1113), rng.randrange(0x1161, 0x1176), rng.randrange(0x11A7, 0x11C3),
                                           rng.randrange(0xAC00, 0xD7A4)])) for _ in range(rng.randint(1, 4)))
        else:
            out += rng.choice("aeiouAEn ") + "".join(chr(rng.choice(MARKS[:600])) for _ in range(rng.randint(1, 5)))
    return out


def text_spaces(rng):
    out = ""
    for _ in range(rng.randint(1, 10)):
        out += rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5]) + rng.choice(["", "", rng.choice(WORDS), "9", "!", "ß", "'"])
    return out


def text_contractions(rng):
    return "".join(rng.choice(["I", "you", " we", "it", "X", "", " "]) + rng.choice(["'", "'", "’", "''"]) +
                   rng.choice(["s", "S", "t", "T", "re", "RE", "rE", "ve", "VE", "m", "M", "ll", "LL", "lL", "d", "D", "\u017f", "r", "l", "\u212a", "", "é"]) +
                   rng.choice(["", " ", "x", "1", "!"]) for _ in range(rng.randint(1, 5)))


def text_ascii(rng):
    return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randint(1, 60)))


def text_special(rng):
    out = ""
    for _ in range(rng.randint(1, 6)):
        out += rng.choice(["", " ", "  ", "\n", "a", " b ", "é", "_", "9", rng.choice(WORDS)]) + rng.choice(SPECIALS)
    return out + rng.choice(["", " ", "   ", "z", "\n"])


def text_numbers(rng):
    return "".join(rng.choice([str(rng.randrange(10 ** rng.randint(1, 9))), chr(rng.choice(NUMBERS)), " ", ",", ".", "e", "%"])
                   for _ in range(rng.randint(1, 8)))


def text_code(rng):
    return "".join(rng.choice(CODE) for _ in range(rng.randint(1, 3)))[rng.randrange(6) :]


def text_emoji(rng):
    return rng.choice(["", " "]).join(rng.choice(EMOJI + ["\u200d", "\ufe0f", "🏽"]) for _ in range(rng.randint(1, 8)))


def text_compat(rng):
    """What the compatibility forms, lower-casing and BERT's clean-up change."""
    pools = [COMPAT, UPPER, OTHERS, list(range(0x20)) + list(range(0x7F, 0xA1)), list(range(0x4E00, 0x4E40)), list(range(0xFF00, 0xFFF0)), MARKS]
    out = ""
    for _ in range(rng.randint(1, 8)):
        pool = rng.choice(pools)
        out += rng.choice(["", "", " ", "a", "Word"]) + "".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 4)))
    return out


def text_cjk(rng):
    out = ""
    for _ in range(rng.randint(1, 6)):
        low, high = rng.choice([(0x4E00, 0x9FA5), (0x3041, 0x30FF), (0xAC00, 0xD7A3), (0x3000, 0x3020), (0x20000, 0x2A6DF), (0xFF01, 0xFF60), (0x3400, 0x4DB5)])
        out += "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 6))) + rng.choice(["", " ", "a", "。"])
    return out


def all_makers():
    return [sentence, sentence, text_script, text_script, text_any, text_any, text_marks, text_spaces, text_contractions, text_ascii, text_special,
            text_special, text_numbers, text_code, text_emoji, text_compat, text_cjk, lambda r: r.choice(FOREIGN)]


def strings():
    """Each a list of parts (text, repeat)."""
    rng = random.Random(2)
    makers = all_makers()
    out = [[("", 1)], [(" ", 1)], [("\n", 1)], [("'", 1)], [("\u0301", 1)]]
    runs = list("a.= \n\t1é'-_<") + ["the", "\u0301", "\u200d", "😀", "👩\u200d", "ㅏ", "中", "\u00a0", "\U000e0001", "\U0010fffd", "ab", "\r\n", " a", "e\u0301"]
    for n, ch in enumerate(runs):
        for k in (2, 3, 17, 64, 127, 128, 129, 130, 500, 1025, 9000):
            out.append([(ch, k)])
            out.append([(rng.choice(WORDS), 1), (ch, k + n), (rng.choice(["!", "b", " ", "\n", "x1"]), 1)])
    while len(out) < N_STRINGS:
        text = rng.choice(makers)(rng)
        kind = rng.random()
        if kind < 0.15:
            text += rng.choice(makers)(rng)
        parts = [(text, 1)]
        if kind > 0.98:
            parts = [(text, rng.randint(2, 40))] + parts
        out.append(parts)
    return out


# ---- files ----


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def write_strings(items):
    blob = bytearray(b"WTS1" + struct.pack("<I", len(items)))
    for parts in items:
        blob += varint(len(parts))
        for text, repeat in parts:
            raw = text.encode()
            blob += varint(repeat) + varint(len(raw)) + raw
    (OUT / "strings.bin").write_bytes(blob)


def digest(data):
    return hashlib.sha256(data).digest()[:2]


def write_expect(family, tok, items):
    blob, total = bytearray(b"WTE2" + struct.pack("<I", len(items))), hashlib.sha256()
    texts = hashlib.sha256()
    for i, parts in enumerate(items):
        text = "".join(t * k for t, k in parts)
        ids = tok.encode(text, add_special_tokens=bool(i % 2)).ids
        raw = struct.pack(f"<{len(ids)}I", *ids)
        total.update(raw)
        decoded = tok.decode(ids if i % 2 else ids[::-1], skip_special_tokens=i % 4 == 1)
        texts.update(decoded.encode())
        blob += digest(raw) + digest(decoded.encode())
    (OUT / family / "expect.bin").write_bytes(blob + total.digest() + texts.digest())


def text_of(parts):
    return "".join(t * k for t, k in parts)


def write_pairs(family, tok, items):
    blob = bytearray(b"WTP1" + struct.pack("<I", N_PAIRS))
    for i in range(N_PAIRS):
        e = tok.encode(text_of(items[2 * i]), text_of(items[2 * i + 1]))
        both = e.ids + e.type_ids
        blob += digest(struct.pack(f"<{len(both)}I", *both))
    (OUT / family / "pairs.bin").write_bytes(blob)


def redo(items):
    """Writes expectations anew for the committed tokenizers (--again)."""
    for path in sorted(OUT.glob("*/tokenizer.json")):
        tok = Tokenizer.from_file(str(path))
        write_expect(path.parent.name, tok, items)
        if path.parent.name in tok_kinds.KINDS:
            write_pairs(path.parent.name, tok, items)


def main():
    if tokenizers.__version__ != PINNED:
        sys.exit(f"tok.py: tokenizers {tokenizers.__version__} is here; the goldens are of {PINNED}")
    items = strings()
    OUT.mkdir(parents=True, exist_ok=True)
    write_strings(items)
    if sys.argv[1:] == ["--again"]:
        return redo(items)
    for family in sys.argv[1:] or ["gpt2", "llama3", "qwen2", *tok_kinds.KINDS]:
        (OUT / family).mkdir(exist_ok=True)
        kind = tok_kinds.KINDS.get(family)
        tok, config, *model = kind(list(corpus())) if kind else build(family)
        path = OUT / family / "tokenizer.json"
        path.write_text(tok.to_str(pretty=False) + "\n")
        (OUT / family / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        for raw in model:
            (OUT / family / "tokenizer.model").write_bytes(raw)
        tok = Tokenizer.from_file(str(path))
        write_expect(family, tok, items)
        if kind:
            write_pairs(family, tok, items)
        print(f"{family}: {tok.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
