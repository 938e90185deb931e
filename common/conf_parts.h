/* conf_parts.h: private to common/conf*.c. */
#ifndef WEIR_COMMON_CONF_PARTS_H
#define WEIR_COMMON_CONF_PARTS_H

#include "common/conf.h"

enum { CONF_FILE_BYTES_MAX = 1 << 20, CONF_NAME_BYTES_MAX = 64 };

/* conf_value: one value, or several (a list), as text; what it may become is the flag's business. NULL text:
 * null. */
struct conf_value {
    char **texts; /* heap */
    size_t n;
    bool is_list; /* was written as one */
    bool is_bool; /* an unquoted true or false */
};
/* conf_pair: one line of a file. */
struct conf_pair {
    char *key;
    struct conf_value value;
    size_t line;
};
struct conf_file {
    struct conf_pair *pairs;
    size_t n;
};

/* conf_file_read: a flat YAML or JSON mapping. Errors name the line. */
MUST_USE enum rc conf_file_read(const char *path, struct conf_file *out, struct err *e);
/* conf_file_parse: the same from text. */
MUST_USE enum rc conf_file_parse(struct str text, struct conf_file *out, struct err *e);
void conf_file_free(struct conf_file *f);
void conf_value_add(struct conf_value *v, const char *text, size_t n);

/* conf_place: where a flag's value lives. */
static inline void *conf_place(const struct conf_flag *f, void *opts) {
    return (char *)opts + f->offset;
}
/* conf_set: one value of a flag that has a place. For a CONF_LIST it is appended. name: as written, for
 * messages. */
MUST_USE enum rc conf_set(const struct conf_flag *f, void *opts, const char *name, const char *text,
                          struct err *e);
/* conf_merge: --flag.path text: into the JSON that is there. */
MUST_USE enum rc conf_merge(const struct conf_flag *f, void *opts, const char *path, const char *text,
                            struct err *e);
/* conf_check: whether text is a value of this kind, without a place for it (CONF_IGNORED, CONF_REFUSED). */
MUST_USE enum rc conf_check(enum conf_kind kind, const char *name, const char *text, struct err *e);
/* conf_is_choice: whether text is one of "a|b|c". */
bool conf_is_choice(const char *choices, const char *text);
/* conf_clear: back to nothing: heap places only. */
void conf_clear(const struct conf_flag *f, void *opts);

/* conf_norm: name in lower case of dashes: underscores become dashes. out has CONF_NAME_BYTES_MAX + 1 bytes;
 * longer names are cut. */
void conf_norm(char *out, const char *name, size_t n);
/* conf_nearest: the flag whose name is closest to name by edit distance; NULL for an empty table. */
const char *conf_nearest(const struct conf_table *t, const char *name);

#endif
