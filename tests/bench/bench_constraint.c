/* constraint.*: what 64 constrained sequences do to 64 free ones beside them, in one engine with
 * deploy/tiny-model: the 99th percentile of the time between two tokens of the free ones, and the CPU and
 * wall time of the whole, each over the same with all 128 free, runs alternating. *_shared_*: all constrained
 * ones have one schema, and so one grammar, instead of one each. Run from the project's root. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/beside.h"
#include "tests/support/bench.h"

enum { TOKENS = 160, ROUNDS = 5 };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double v[ROUNDS]) {
    qsort(v, ROUNDS, sizeof *v, ascending);
    return v[ROUNDS / 2];
}

struct series {
    double p99_us[ROUNDS], cpu_s[ROUNDS], wall_s[ROUNDS];
};

static void add(struct series *s, uint32_t i, struct beside_run r) {
    s->p99_us[i] = r.p99_us;
    s->cpu_s[i] = r.cpu_s;
    s->wall_s[i] = r.wall_s;
}

int main(void) {
    static const char *const names[] = {"", "shared_"};
    struct beside *b;
    struct err e = {0};
    if (beside_open(&b, &e)) {
        fprintf(stderr, "bench_constraint: %s\n", e.msg);
        return 1;
    }
    (void)beside_run(b, BESIDE_FREE, TOKENS);
    for (enum beside_kind kind = BESIDE_APART; kind <= BESIDE_SHARED; kind++) {
        struct series all_free, beside;
        for (uint32_t i = 0; i < ROUNDS; i++) {
            add(&all_free, i, beside_run(b, BESIDE_FREE, TOKENS));
            add(&beside, i, beside_run(b, kind, TOKENS));
        }
        char params[256], name[64];
        double cold_us = beside.p99_us[0]; /* with its schemas to compile */
        double free_us = median(all_free.p99_us), us = median(beside.p99_us);
        snprintf(params, sizeof params,
                 "{\"free\":%d,\"constrained\":%d,\"tokens\":%d,\"p99_all_free_us\":%.0f,\"p99_beside_us\":"
                 "%.0f,\"p99_beside_cold_us\":%.0f}",
                 BESIDE_EACH, BESIDE_EACH, TOKENS, free_us, us, cold_us);
        const char *kind_name = names[kind - BESIDE_APART];
        snprintf(name, sizeof name, "constraint.%sfree_p99_ratio", kind_name);
        bench_emit(name, us / free_us, "x", params);
        snprintf(name, sizeof name, "constraint.%scpu_ratio", kind_name);
        bench_emit(name, median(beside.cpu_s) / median(all_free.cpu_s), "x", params);
        snprintf(name, sizeof name, "constraint.%swall_ratio", kind_name);
        bench_emit(name, median(beside.wall_s) / median(all_free.wall_s), "x", params);
    }
    beside_close(b);
    return 0;
}
