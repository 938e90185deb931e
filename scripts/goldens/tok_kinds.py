"""tok_kinds.py: small tokenizers of the kinds beside byte-level BPE, trained by tok.py.

  bert_uncased, bert_cased   WordPiece with BertNormalizer and BertPreTokenizer, as BERT has them
  xlmr                       Unigram with SentencePiece's character map nmt_nfkc, as XLM-RoBERTa and E5 have it
  llama2                     BPE with byte fallback over a whole text, normaliser Prepend and Replace
  mistral                    the same with Metaspace instead, first and not split, and rank order as trained
  gemma                      the same with Replace only and a Split at spaces; unknown characters fuse
  t5                         Unigram with byte fallback behind NFKC, lower case and WhitespaceSplit

xlmr is trained by SentencePiece, which puts the map into its model file.
"""
import io
import json
import struct

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


# Each returns the tokenizer, its tokenizer_config.json, and tokenizer.model if there is one.


def bert(corpus, uncased):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=uncased)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece(prefix="##", cleanup=uncased)
    tok.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=2500, special_tokens=BERT_SPECIAL, limit_alphabet=700, show_progress=False))
    tok.add_tokens([AddedToken("[Ent]", normalized=True), AddedToken("Naïve-Bayes", normalized=True, single_word=True)])
    cls, sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")
    if uncased:
        tok.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
    else:
        tok.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    config = {"do_lower_case": uncased, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    return tok, config


def sentencepiece_model(corpus, **options):
    """The model file that SentencePiece trains, as bytes."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in corpus for line in text.split("\n") if line), model_writer=out, num_threads=1, minloglevel=2,
        **options)
    return out.getvalue()


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, value) of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        else:
            n, at = (4, at) if key & 7 == 5 else (8, at) if key & 7 == 1 else varint(data, at)
            value, at = data[at : at + n], at + n
        yield key >> 3, value


def pieces_of(model):
    """[(piece, score)] of a SentencePiece model file."""
    out = []
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            out.append((piece[1].decode(), struct.unpack("<f", piece[2])[0]))
    return out


def charsmap_of(model):
    spec = next(dict(fields(value)) for number, value in fields(model) if number == 3)
    return spec[2]


def xlmr(corpus):
    model = sentencepiece_model(corpus, model_type="unigram", vocab_size=1500, character_coverage=0.998, normalization_rule_name="nmt_nfkc",
                                hard_vocab_limit=False)
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [p for p in pieces_of(model)[3:]] + [("<mask>", 0.0)]
    tok = Tokenizer(models.Unigram(vocab, unk_id=3))
    tok.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap_of(model)), normalizers.Strip(left=False, right=True),
                                           normalizers.Replace(Regex(" {2,}"), "\u2581")])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tok.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False, lstrip=t == "<mask>") for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")])
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tok, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>", "tokenizer_class": "XLMRobertaTokenizer"}, model


def t5(corpus):
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(left=False, right=True),
                                               normalizers.Replace(Regex(" {2,}"), "\u2581")])
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="first")])
    trained.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=1200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
                                                                show_progress=False))
    state = json.loads(trained.to_str())
    state["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
    state["model"]["byte_fallback"] = True
    tok = Tokenizer.from_str(json.dumps(state))
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_tokens([AddedToken("<Extra>", normalized=True), AddedToken("[INST]", normalized=False, rstrip=True)])
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return tok, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def merges_of(pieces):
    """The merges of a SentencePiece BPE model, as transformers derives them: pairs by the rank of what they make."""
    rank = {piece: i for i, (piece, _) in enumerate(pieces)}
    out = []
    for piece, i in rank.items():
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in rank and piece[k:] in rank]
        out += [(i, rank[a], rank[b], a, b) for a, b in pairs]
    return [(a, b) for _, _, _, a, b in sorted(out)]


def llama2(corpus):
    model = sentencepiece_model(corpus, model_type="bpe", vocab_size=1600, character_coverage=0.98, byte_fallback=True,
                                normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                                allow_whitespace_only_pieces=True)
    pieces = pieces_of(model)
    merges = merges_of(pieces[259:])
    tok = Tokenizer(models.BPE({p: i for i, (p, _) in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tok.add_tokens([AddedToken("[INST]", normalized=True), AddedToken("<pad>", normalized=False)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tok, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "tokenizer_class": "LlamaTokenizer"}, model


def trained_chars(corpus, pre_tokenizer, **options):
    """BPE over characters, trained here."""
    tok = Tokenizer(models.BPE(**options))
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    if pre_tokenizer:
        tok.pre_tokenizer = pre_tokenizer
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    cut = Tokenizer(models.BPE(**options))
    cut.normalizer = tok.normalizer
    cut.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    cut.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=1500, special_tokens=special, limit_alphabet=200, show_progress=False))
    state, learned = json.loads(tok.to_str()), json.loads(cut.to_str())
    for key in ("vocab", "merges"):
        state["model"][key] = learned["model"][key]
    state["added_tokens"] = [t for t in learned["added_tokens"] if t["id"] < 3]
    return Tokenizer.from_str(json.dumps(state))


def mistral(corpus):
    tok = trained_chars(corpus, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tok.normalizer = normalizers.Sequence([])
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken("[INST]", special=True, normalized=False), AddedToken("[/INST]", special=True, normalized=False)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gemma(corpus):
    tok = trained_chars(corpus, pre_tokenizers.Split(" ", "merged_with_previous"), unk_token="<unk>", fuse_unk=True, byte_fallback=False)
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens([AddedToken("<start_of_turn>", special=True, normalized=False), AddedToken("<mask>", special=True, lstrip=True)])
    tok.add_tokens([AddedToken("  "), AddedToken("the river", normalized=True)])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return tok, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


KINDS = {
    "bert_uncased": lambda corpus: bert(corpus, True),
    "bert_cased": lambda corpus: bert(corpus, False),
    "xlmr": xlmr,
    "t5": t5,
    "llama2": llama2,
    "mistral": mistral,
    "gemma": gemma,
}
