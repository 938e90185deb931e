/* tok_draft.h: a tokenizer.json in the making, from the files a folder has instead. For tok_fallback.c. */
#ifndef WEIR_COMMON_TEXT_TOK_DRAFT_H
#define WEIR_COMMON_TEXT_TOK_DRAFT_H

#include "common/json.h"
#include "common/text/tok.h"

struct draft {
    json_t *config; /* tokenizer_config.json, or empty */
    json_t *map;    /* special_tokens_map.json, or empty */
    const char *end; /* what GPT-2 takes for the tokens that nothing names; else NULL */
    json_t *vocab;  /* object from token to id; of Unigram, list of [token, score] */
    json_t *ids;    /* the former in both cases; borrowed where it is vocab */
    json_t *model, *added, *root;
};

/* Values; the caller's references. draft_text wants UTF-8. */
json_t *draft_text(struct str s);
json_t *draft_textz(const char *z);
/* draft_part: an object with a type; draft_sequence: a Sequence with an empty list at key. */
json_t *draft_part(const char *type);
json_t *draft_sequence(const char *key);
/* draft_set, draft_push: v moves in. */
void draft_set(json_t *object, const char *key, json_t *v);
void draft_push(json_t *list, json_t *v);

/* What the side files say. draft_named: the text of bos_token and the like, a string or an object with
 * content; fallback if neither file has it. Borrowed. */
bool draft_flag(const struct draft *d, const char *key, bool fallback);
bool draft_is_class(const struct draft *d, const char *prefix);
const char *draft_named(const struct draft *d, const char *key, const char *fallback);
/* draft_id_of: -1 for a token that the vocabulary lacks. */
json_int_t draft_id_of(const struct draft *d, const char *token);

/* draft_add: an added token without flags; content moves in. */
void draft_add(struct draft *d, json_int_t id, json_t *content, bool special);
/* draft_put_template: front A back, and front A back middle B back; NULL for none. */
void draft_put_template(struct draft *d, const char *front, const char *back, const char *middle, int type_b);
/* draft_put_bos_eos: as add_bos_token and add_eos_token say. */
void draft_put_bos_eos(struct draft *d, bool bos, bool eos);

/* draft_from_spm: model, normalizer, pre_tokenizer, decoder and post_processor from a tokenizer.model. */
MUST_USE enum rc draft_from_spm(struct draft *d, struct str file, struct err *e);

#endif
