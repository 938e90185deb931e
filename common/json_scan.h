/* json_scan.h: private to common/json*.c: numbers and what a scan learned about a text. */
#ifndef WEIR_COMMON_JSON_SCAN_H
#define WEIR_COMMON_JSON_SCAN_H

#include "common/json.h"

/* Jansson recurses once per level and stops at 2048 itself; no limit goes above that. */
enum { JSON_DEPTH_MAX = 2048 };

enum json_number {
    JSON_NUMBER_BAD = 0,
    JSON_NUMBER_INT,  /* digits only, fits an int64 */
    JSON_NUMBER_BIG,  /* digits only, beyond int64, finite as a double */
    JSON_NUMBER_REAL, /* fraction or exponent, finite */
    JSON_NUMBER_INFINITE,
};
/* json_number_scan: the JSON number at the front of p[0, n): its kind and length. *value (may be NULL) as a
 * double. JSON_NUMBER_BAD: no number there; *len is where it went wrong. Linear, however long the digits. */
enum json_number json_number_scan(const char *p, size_t n, size_t *len, double *value);

struct json_seen {
    size_t n_big;   /* integers beyond int64 */
    size_t n_nodes; /* values */
};
/* json_scan_seen: json_scan, telling what it saw. seen may be NULL. */
MUST_USE enum rc json_scan_seen(struct str text, const struct json_limits *l, struct json_seen *seen,
                                struct err *e);

#endif
