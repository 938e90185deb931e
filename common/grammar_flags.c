#include "common/grammar_flags.h"

enum { MOVES_PER_FUEL = 4 }; /* a unit of fuel is about 10 ns, a move about 2.5 ns */

void grammar_flags_init(struct grammar_flags *f) {
    *f = (struct grammar_flags){
        .cache_mb = 256,
        .schema_bytes = 256 * KIB,
        .regex_bytes = 16 * KIB,
        .schema_nodes = 32768,
        .choices = 4096,
        .states = 1000000,
        .moves = 20000000,
        .regex_repeat = 1024,
        .regex_states = 100000,
    };
}

/* at_least_one: zero would mean the compiler's own default. */
static uint32_t at_least_one(uint64_t n) {
    return (uint32_t)MAX(MIN(n, UINT32_MAX), 1u);
}

struct gram_limits grammar_flags_limits(const struct grammar_flags *f) {
    return (struct gram_limits){
        .n_rx = at_least_one((uint64_t)f->states),
        .mask_fuel = MAX((uint64_t)f->moves / MOVES_PER_FUEL, 1u),
        .text_bytes = at_least_one(f->schema_bytes),
        .n_nodes = at_least_one((uint64_t)f->schema_nodes),
        .n_choices = at_least_one((uint64_t)f->choices),
        .regex_bytes = at_least_one(f->regex_bytes),
        .regex_repeat = at_least_one((uint64_t)f->regex_repeat),
        .regex_states = at_least_one((uint64_t)f->regex_states),
    };
}
