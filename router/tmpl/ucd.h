/* ucd.h: properties and case mappings of code points, as Python's str methods have them. */
#ifndef WEIR_ROUTER_TMPL_UCD_H
#define WEIR_ROUTER_TMPL_UCD_H

#include "common/base.h"

enum {
    UCD_SPACE = 1 << 0,
    UCD_ALPHA = 1 << 1,
    UCD_DECIMAL = 1 << 2,
    UCD_DIGIT = 1 << 3,
    UCD_NUMERIC = 1 << 4,
    UCD_PRINTABLE = 1 << 5,
    UCD_LOWER = 1 << 6,
    UCD_UPPER = 1 << 7,
    UCD_TITLE = 1 << 8,
    UCD_CASED = 1 << 9,      /* for the final sigma */
    UCD_IGNORABLE = 1 << 10, /* for the final sigma: skipped when looking for a cased letter */
    UCD_ID_START = 1 << 11,
    UCD_ID_CONTINUE = 1 << 12,
    UCD_SPECIAL = 0x200000 /* a mapping at or above this is a row of tm_ucd_special */
};

struct tm_ucd {
    int32_t upper, lower, title; /* to add to the code point, or UCD_SPECIAL + row */
    uint32_t flags;
};
extern const struct tm_ucd tm_ucd_records[];
extern const uint32_t tm_ucd_special[][3]; /* up to three code points; 0 ends */
extern const uint16_t tm_ucd_ascii[128];
extern const uint32_t tm_ucd_n_runs;
extern const uint32_t tm_ucd_runs[]; /* code point << 9 | record, sorted */

static inline const struct tm_ucd *tm_ucd(uint32_t cp) {
    if (cp < 128)
        return &tm_ucd_records[tm_ucd_ascii[cp]];
    size_t lo = 0, hi = tm_ucd_n_runs; /* runs[lo] begins at or before cp, runs[hi] after it */
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (tm_ucd_runs[mid] >> 9 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return &tm_ucd_records[tm_ucd_runs[lo] & 511];
}
static inline bool tm_is_space(uint32_t cp) {
    return tm_ucd(cp)->flags & UCD_SPACE;
}

#endif
