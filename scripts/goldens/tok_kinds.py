"""tok_kinds.py: small tokenizers of the kinds beside byte-level BPE, trained by tok.py.

  bert_uncased, bert_cased   WordPiece with BertNormalizer and BertPreTokenizer, as BERT has them
"""
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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


KINDS = {
    "bert_uncased": lambda corpus: bert(corpus, True),
    "bert_cased": lambda corpus: bert(corpus, False),
}
