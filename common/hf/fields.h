/* fields.h: strict readers of the members of config.json and generation_config.json.
 *
 * Unlike the getters of json.h for requests, nothing is coerced: a number written as text is a fault of the
 * file. Absent and null leave *out alone: the caller has put the default there. Errors name file and key.
 */
#ifndef WEIR_COMMON_HF_FIELDS_H
#define WEIR_COMMON_HF_FIELDS_H

#include <jansson.h>

#include "common/err.h"

struct fields {
    const char *file;   /* "config.json", for messages */
    const char *prefix; /* "rope_scaling." for members of that object; "" at the top */
    const json_t *obj;
    struct err *e;
};

/* field_get: the member, or NULL if it is absent or null. */
const json_t *field_get(const struct fields *f, const char *key);
/* field_bad: RC_INVALID with "FILE: PREFIXKEY: ...". */
enum rc field_bad(const struct fields *f, const char *key, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* field_u32: a whole number (also written 8192.0) from lo to hi. */
MUST_USE enum rc field_u32(const struct fields *f, const char *key, uint32_t lo, uint32_t hi, uint32_t *out);
/* field_f64: a finite number from lo to hi; lo itself only if not lo_open. */
MUST_USE enum rc field_f64(const struct fields *f, const char *key, double lo, bool lo_open, double hi,
                           double *out);
MUST_USE enum rc field_bool(const struct fields *f, const char *key, bool *out);
/* field_str: borrowed from the JSON value. */
MUST_USE enum rc field_str(const struct fields *f, const char *key, const char **out);
/* field_ids: a token id or a list of 1 to max ids, each below n_vocab; repeated ones count once. */
MUST_USE enum rc field_ids(const struct fields *f, const char *key, uint32_t n_vocab, uint32_t *out,
                           uint32_t max, uint32_t *n);

/* fields_parse: text of at most 1 MiB to a JSON object; *out is the caller's reference. */
MUST_USE enum rc fields_parse(const char *file, struct str text, json_t **out, struct err *e);

#endif
