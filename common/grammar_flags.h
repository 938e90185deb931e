/* grammar_flags.h: the limits of structured output as flags (api.md 18, 22.2), the same for routers and
 * workers: a router checks a constraint under them, and the worker, which trusts nobody, does so again.
 */
#ifndef WEIR_COMMON_GRAMMAR_FLAGS_H
#define WEIR_COMMON_GRAMMAR_FLAGS_H

#include "common/conf.h"
#include "common/gram/ir.h"

struct grammar_flags {
    int64_t cache_mb; /* a worker's grammars that no request uses */
    uint64_t schema_bytes, regex_bytes;
    int64_t schema_nodes, choices, states, moves, regex_repeat, regex_states;
};

#define GRAMMAR_FLAG_(flag, base, member, most, text)                                                        \
    {                                                                                                        \
        .name = flag, .kind = CONF_INT, .min = 1, .max = most,                                               \
        .offset = (base) + offsetof(struct grammar_flags, member), .help = text                              \
    }
#define GRAMMAR_FLAG_BYTES_(flag, base, member, text)                                                        \
    {                                                                                                        \
        .name = flag, .kind = CONF_SIZE, .offset = (base) + offsetof(struct grammar_flags, member),          \
        .help = text                                                                                         \
    }

/* GRAMMAR_FLAG_ROWS: for a table whose struct has a struct grammar_flags at offset base. */
#define GRAMMAR_FLAG_ROWS(base)                                                                              \
    GRAMMAR_FLAG_("grammar-cache-mb", base, cache_mb, 1e6,                                                   \
                  "MiB of compiled grammars that wait for their next use; those in use may take four "       \
                  "times as much, and 256 at least [256]"),                                                  \
        GRAMMAR_FLAG_BYTES_("max-schema-bytes", base, schema_bytes,                                          \
                            "text of a schema, grammar or tag [256 KiB]"),                                   \
        GRAMMAR_FLAG_("max-schema-nodes", base, schema_nodes, 1e9,                                           \
                      "parts of a schema, $ref followed [32768]"),                                           \
        GRAMMAR_FLAG_("max-choices", base, choices, 1e9, "members of guided_choice, or of an enum [4096]"),  \
        GRAMMAR_FLAG_("max-grammar-states", base, states, 4e9,                                               \
                      "expressions of a compiled grammar [1000000]"),                                        \
        GRAMMAR_FLAG_("max-grammar-moves", base, moves, 1e15,                                                \
                      "steps of an automaton for one token [20000000]"),                                     \
        GRAMMAR_FLAG_BYTES_("max-regex-bytes", base, regex_bytes, "text of a pattern [16 KiB]"),             \
        GRAMMAR_FLAG_("max-regex-repeat", base, regex_repeat, 1e9, "bound of a repeat in a pattern [1024]"), \
        GRAMMAR_FLAG_("max-regex-states", base, regex_states, 1e9,                                           \
                      "length of a pattern with its repeats written out [100000]")

/* grammar_flags_init: the defaults. */
void grammar_flags_init(struct grammar_flags *f);
/* grammar_flags_limits: as the compiler takes them. */
struct gram_limits grammar_flags_limits(const struct grammar_flags *f);

#endif
