/* tok.h: text to token ids and back, exactly as the model's Hugging Face tokenizer.
 *
 * A `struct tok` is immutable once loaded: any number of threads may use it at once. The kinds of
 * model and the parts around it (normaliser, pre-tokeniser, post-processor, decoder) are chosen at
 * load; a part this build does not know stops the load and is named in the error.
 * Encoding takes time linear in the text for every input.
 */
#ifndef WEIR_COMMON_TEXT_TOK_H
#define WEIR_COMMON_TEXT_TOK_H

#include "common/buf.h"
#include "common/err.h"

struct tok;

/* The files of a tokenizer, as bytes; empty where there is none. The router has them from the worker, not from
 * a disk. */
struct tok_files {
    struct str tokenizer_json;
    struct str tokenizer_config_json;   /* bos_token, eos_token, clean_up_tokenization_spaces */
    struct str special_tokens_map_json; /* fallback for the same */
    /* Where there is no tokenizer_json, the first of these that is there: */
    struct str tokenizer_model; /* SentencePiece */
    struct str vocab_json, merges_txt;
    struct str vocab_txt; /* WordPiece, a token a line */
    struct str added_tokens_json; /* beside one of these: more tokens, with their ids */
};

/* A range of text that a client wrote: in it, the spelling of an added token marked `special` is
 * plain text (api.md 10.4.3). Sorted, not overlapping. */
struct tok_mark {
    size_t begin, end;
};

struct tok_ids {
    uint32_t *v;
    size_t n, cap;
};

enum { TOK_ADD_SPECIAL = 1 }; /* run the post-processor: BOS and the like */

/* tok_load: builds a tokenizer. Bounded by the size of its files. RC_INVALID names file, key and
 * reason; RC_UNSUPPORTED names the component. The files are not referenced afterwards. */
MUST_USE enum rc tok_load(struct tok **out, const struct tok_files *files, struct err *e);
void tok_free(struct tok *t); /* NULL is fine */

/* tok_encode: appends the ids of n bytes of text (UTF-8; invalid bytes are read as U+FFFD). With
 * marks NULL all text counts as the template's own, as Hugging Face reads it. Never fails. */
void tok_encode(const struct tok *t, const char *text, size_t n, const struct tok_mark *marks, size_t n_marks,
                unsigned flags, struct tok_ids *out);
/* tok_n_special: how many ids TOK_ADD_SPECIAL adds in front and behind. */
void tok_n_special(const struct tok *t, size_t *n_front, size_t *n_back);

/* Ids of one text, encoded without TOK_ADD_SPECIAL; borrowed. */
struct tok_text_ids {
    const uint32_t *v; /* [n]; may be NULL when n is 0 */
    size_t n;
};
/* tok_wrap: appends the ids of one text with the special tokens TOK_ADD_SPECIAL adds, and the token type of
 * each to types (which may be NULL). */
void tok_wrap(const struct tok *t, struct tok_text_ids a, struct tok_ids *out, struct tok_ids *types);
/* tok_wrap_pair: the same for a pair of texts, by the tokenizer's template for pairs ("[CLS] A [SEP] B
 * [SEP]"). A tokenizer without one puts a (type 0) before b (type 1). */
void tok_wrap_pair(const struct tok *t, struct tok_text_ids a, struct tok_text_ids b, struct tok_ids *out,
                   struct tok_ids *types);
/* tok_n_special_pair: how many ids tok_wrap_pair adds. */
size_t tok_n_special_pair(const struct tok *t);

/* tok_vocab_size: ids are below this (highest id + 1; the model's logits may be wider). */
uint32_t tok_vocab_size(const struct tok *t);
/* tok_piece: the raw vocabulary entry of an id ("Ġthe"); empty for a hole. Borrowed from t. */
struct str tok_piece(const struct tok *t, uint32_t id);
/* tok_bytes: the bytes an id stands for in running text ("\x20the"); special tokens give their
 * content. Borrowed from t. Kinds whose text depends on neighbours say so through detok.h. */
struct str tok_bytes(const struct tok *t, uint32_t id);
/* tok_is_special: an added token marked special. */
bool tok_is_special(const struct tok *t, uint32_t id);
/* tok_is_added: any added token. */
bool tok_is_added(const struct tok *t, uint32_t id);
/* tok_find: the id whose piece or added content is exactly s; false if there is none. */
bool tok_find(const struct tok *t, struct str s, uint32_t *id);
/* tok_bos, tok_eos: from tokenizer_config.json; false if absent or unknown to the vocabulary. */
bool tok_bos(const struct tok *t, uint32_t *id);
bool tok_eos(const struct tok *t, uint32_t *id);

void tok_ids_fini(struct tok_ids *ids);
void tok_ids_push(struct tok_ids *ids, uint32_t id);

#endif
