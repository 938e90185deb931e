/* regex_tab.h: Unicode properties for regular expressions; read through regex_uni.c.
 * Written by scripts/gen_gram_unicode.py from regex 2026.11.15; do not edit. */
#ifndef WEIR_COMMON_GRAM_REGEX_TAB_H
#define WEIR_COMMON_GRAM_REGEX_TAB_H

#include <stdint.h>

enum {
    RXT_N_CATEGORY_RUNS = 4201,
    RXT_N_SCRIPT_RUNS = 1732,
    RXT_N_EDGES = 11558,
    RXT_N_ORBITS = 2886,
    RXT_N_CATEGORY_NAMES = 78,
    RXT_N_SCRIPT_NAMES = 351,
    RXT_N_BINARY = 16,
};

/* Runs of equal value: first code point << 8 | value, sorted. */
extern const uint32_t rxt_category_runs[RXT_N_CATEGORY_RUNS], rxt_script_runs[RXT_N_SCRIPT_RUNS];
/* Names in capitals without '_', sorted. A category's value is a mask of values of runs. */
struct rxt_name {
    const char *name;
    uint32_t value;
};
extern const struct rxt_name rxt_category_names[RXT_N_CATEGORY_NAMES], rxt_script_names[RXT_N_SCRIPT_NAMES];
/* Yes-or-no properties: edges[at .. at + n) are the code points where it becomes true, false, true ... */
struct rxt_binary {
    const char *name;
    uint32_t at, n;
};
extern const struct rxt_binary rxt_binary[RXT_N_BINARY];
extern const uint32_t rxt_edges[RXT_N_EDGES];
/* Letters that differ in case only form circles; sorted by cp. */
struct rxt_orbit {
    uint32_t cp, next;
};
extern const struct rxt_orbit rxt_orbits[RXT_N_ORBITS];

#endif
