/* tags.h: what the files of structural tags share. Nobody else includes it. */
#ifndef WEIR_COMMON_GRAM_TAGS_H
#define WEIR_COMMON_GRAM_TAGS_H

#include "common/gram/front.h"
#include "common/json.h"

enum { TAGS_DEPTH_MAX = 64 };

struct tags {
    struct gram *g;
    const struct gram_options *o;
    struct buf path; /* JSON pointer of what is being read */
    unsigned depth;
    uint32_t any_char;
    struct err *e;
};

/* A tag's place in the language: what opens it (behind the trigger that has been matched, if any), what it
 * holds, what closes it. */
struct tag {
    struct str begin, end;
    const json_t *content;
    bool schema; /* content is a JSON schema, not a format */
    size_t at;   /* its index, for pointers */
};

/* ---- tags_parts.c ---- */

/* tags_bad: RC_INVALID with the pointer of the place. */
enum rc tags_bad(struct tags *t, const char *key, const char *what);
/* tags_path_*: into a member, into member i of a list; what they return takes the path back up. */
size_t tags_path_down(struct tags *t, const char *key);
size_t tags_path_index(struct tags *t, const char *key, size_t i);
void tags_path_up(struct tags *t, size_t was);

/* tags_want_*: a member of its kind, or RC_INVALID naming it. _list: not empty, bounded. _only: no others
 * than keys, which NULL ends. */
enum rc tags_want_string(struct tags *t, const json_t *o, const char *key, bool empty_ok, struct str *out);
enum rc tags_want_list(struct tags *t, const json_t *o, const char *key, const json_t **out);
enum rc tags_want_bool(struct tags *t, const json_t *o, const char *key, bool *out);
enum rc tags_want_only(struct tags *t, const json_t *o, const char *const *keys);
bool tags_is_type(const json_t *f, const char *type);

/* tags_rx_without: text in which none of the strings occurs; _first_at_end: none ends before the text does.
 */
uint32_t tags_rx_without(struct gram *g, uint32_t strings);
uint32_t tags_rx_first_at_end(struct tags *t, uint32_t strings);
/* tags_rx_strings: one of s[0 .. n), or `also` unless it is empty. */
uint32_t tags_rx_strings(struct gram *g, const struct str *s, size_t n, struct str also);
uint32_t tags_add_pair(struct gram *g, uint32_t rule, uint32_t a, uint32_t b);
uint32_t tags_new_rule(struct gram *g);

/* ---- tags.c ---- */

enum rc tags_read_tag(struct tags *t, const json_t *o, bool schema, struct tag *tag);
enum rc tags_add_tag(struct tags *t, const json_t *o, uint32_t *sym);
/* tags_add_body: a tag without what of its begin has been matched already. */
enum rc tags_add_body(struct tags *t, const struct tag *tag, size_t n_matched, uint32_t *sym);

/* ---- tags_triggered.c ---- */

/* tags_triggered: triggered_tags, or with `legacy` the old shape. stop: the end of the tag around it. */
enum rc tags_triggered(struct tags *t, const json_t *o, bool legacy, struct str stop, uint32_t *sym);
enum rc tags_separated(struct tags *t, const json_t *o, uint32_t *sym);

#endif
