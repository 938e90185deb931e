/* json.h: JSON in and out.
 *
 * In: jansson behind a linear pre-scan that bounds depth and nodes before anything is allocated, then typed
 * getters with the lax coercions of api.md 2.3.6 that name the offending field. Out: a writer that appends to
 * a buf.
 */
#ifndef WEIR_COMMON_JSON_H
#define WEIR_COMMON_JSON_H

#include <jansson.h>

#include "common/buf.h"
#include "common/err.h"

struct json_limits {
    size_t depth_max; /* 64 */
    size_t nodes_max; /* 1,048,576: every value counts 1 */
    size_t keys_max;  /* of one object, equal ones counted each time; 0: no limit but the values' */
};
extern const struct json_limits json_limits_default;

/* json_scan: one pass without allocation: depth, nodes and keys within limits, structure plausible. RC_INVALID with
 * "JSON decode error: ..." or the limit's value and flag. */
MUST_USE enum rc json_scan(struct str text, const struct json_limits *l, struct err *e);
/* json_parse: scan, then parse. A leading byte-order mark is skipped; the last of duplicate keys wins;
 * "\u0000" is legal in strings; NaN, trailing data, invalid UTF-8 and numbers that no int64 or double holds
 * are "JSON decode error" with position. *out is the caller's reference. */
MUST_USE enum rc json_parse(struct str text, const struct json_limits *l, json_t **out, struct err *e);

/* Getters. path is the dotted path of obj ("" at the top), key the member. Absent and null leave *out alone
 * and return RC_OK with *present false (present may be NULL). Wrong kinds: RC_INVALID, param "path.key", a
 * message that names the kind wanted. */
MUST_USE enum rc json_get_int(const json_t *obj, const char *path, const char *key, int64_t *out,
                              bool *present, struct err *e);
MUST_USE enum rc json_get_float(const json_t *obj, const char *path, const char *key, double *out,
                                bool *present, struct err *e);
MUST_USE enum rc json_get_bool(const json_t *obj, const char *path, const char *key, bool *out, bool *present,
                               struct err *e);
/* json_get_str: borrowed from obj. */
MUST_USE enum rc json_get_str(const json_t *obj, const char *path, const char *key, struct str *out,
                              bool *present, struct err *e);
MUST_USE enum rc json_get_list(const json_t *obj, const char *path, const char *key, const json_t **out,
                               bool *present, struct err *e);
MUST_USE enum rc json_get_object(const json_t *obj, const char *path, const char *key, const json_t **out,
                                 bool *present, struct err *e);
/* json_range_int, json_range_float: RC_INVALID with "KEY must be ... greater_than_equal LO" or
 * "less_than_equal HI" (api.md 3.5). */
MUST_USE enum rc json_range_int(const char *param, int64_t v, int64_t lo, int64_t hi, struct err *e);
/* lo_open: v must be greater than lo, not equal. */
MUST_USE enum rc json_range_float(const char *param, double v, double lo, bool lo_open, double hi,
                                  struct err *e);
/* json_kind: "integer", "string" ... for messages. */
const char *json_kind(const json_t *v);

/* ---- writing: each appends one value; commas and keys are the caller's ---------------------------- */

/* jw_str: quoted; control characters escaped, UTF-8 kept as it is, invalid bytes as U+FFFD. */
void jw_str(struct buf *b, struct str s);
void jw_strz(struct buf *b, const char *z); /* NULL writes null */
/* jw_f32: the shortest digits that parse back to the same float; -infinity as -9999.0; NaN must not come
 * here. */
void jw_f32(struct buf *b, float v);
void jw_f64(struct buf *b, double v);
void jw_i64(struct buf *b, int64_t v);
void jw_u64(struct buf *b, uint64_t v);
static inline void jw_bool(struct buf *b, bool v) {
    buf_addz(b, v ? "true" : "false");
}
/* jw_json: a jansson value, compact, without ASCII escaping. */
void jw_json(struct buf *b, const json_t *v);

#endif
