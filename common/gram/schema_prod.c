/* Productions on their way into the grammar, and which rules derive a text at all: so that a schema without
 * values is told here, with a reason, and not first when the grammar is sealed. */
#include <stdlib.h>

#include "common/gram/schema.h"

static void log_add(struct schema *s, uint32_t v) {
    if (s->n_log == s->cap_log) {
        s->cap_log = MAX(1024, s->cap_log * 2);
        s->log = xreallocarray(s->log, s->cap_log, sizeof *s->log);
    }
    s->log[s->n_log++] = v;
}

uint32_t schema_rule(struct schema *s, const char *name, unsigned flags) {
    uint32_t rule = gram_rule(s->g, str_of(name), flags);
    if (rule >= s->cap_is_rule) {
        size_t cap = MAX(1024, (size_t)rule * 2);
        s->is_rule = xreallocarray(s->is_rule, cap, 1);
        memset(s->is_rule + s->cap_is_rule, 0, cap - s->cap_is_rule);
        s->cap_is_rule = cap;
    }
    s->is_rule[rule] = 1;
    return rule;
}

static bool is_rule(const struct schema *s, uint32_t sym) {
    return sym < s->cap_is_rule && s->is_rule[sym];
}

/* log_prod: rule, how many rules stand in the production, and those. */
static void log_prod(struct schema *s, uint32_t rule, const uint32_t *parts, size_t n) {
    uint32_t n_rules = 0;
    for (size_t i = 0; i < n; i++)
        n_rules += is_rule(s, parts[i]);
    log_add(s, rule);
    log_add(s, n_rules);
    for (size_t i = 0; i < n; i++)
        if (is_rule(s, parts[i]))
            log_add(s, parts[i]);
}

void schema_prod(struct schema *s, uint32_t rule, const uint32_t *parts, size_t n) {
    gram_prod(s->g, rule, parts, n);
    log_prod(s, rule, parts, n);
}

uint32_t schema_repeat(struct schema *s, uint32_t part, uint32_t min, uint32_t max) {
    /* A rule of ours around it, to keep the books. */
    uint32_t rule = schema_rule(s, "items", 0), repeat = gram_repeat(s->g, part, s->t_comma, min, max);
    gram_prod(s->g, rule, &repeat, 1);
    log_prod(s, rule, &part, min ? 1 : 0);
    return rule;
}

/* A production waits on a rule: the first waiter of each rule, and for each waiter the next one. */
struct wait {
    size_t prod; /* in the log */
    uint32_t next;
};

bool schema_productive(struct schema *s, uint32_t sym) {
    if (!is_rule(s, sym))
        return true;
    uint32_t *first = xcalloc(s->cap_is_rule, sizeof *first), *ready = NULL;
    struct wait *wait = xreallocarray(NULL, s->n_log + 1, sizeof *wait);
    uint8_t *done = xcalloc(s->cap_is_rule, 1);
    uint32_t n_wait = 1, n_ready = 0;
    ready = xreallocarray(NULL, s->cap_is_rule, sizeof *ready);
    for (size_t i = 0; i < s->n_log; i += 2 + s->log[i + 1]) {
        for (uint32_t k = 0; k < s->log[i + 1]; k++) {
            uint32_t rule = s->log[i + 2 + k];
            wait[n_wait] = (struct wait){i, first[rule]};
            first[rule] = n_wait++;
        }
        if (s->log[i + 1] == 0 && !done[s->log[i]]) {
            done[s->log[i]] = 1;
            ready[n_ready++] = s->log[i];
        }
    }
    /* missing: rules of a production not known to be productive yet. */
    uint32_t *missing = xreallocarray(NULL, s->n_log + 1, sizeof *missing);
    for (size_t i = 0; i < s->n_log; i += 2 + s->log[i + 1])
        missing[i] = s->log[i + 1];
    while (n_ready) {
        uint32_t known = ready[--n_ready];
        for (uint32_t w = first[known]; w; w = wait[w].next) {
            uint32_t rule = s->log[wait[w].prod];
            if (--missing[wait[w].prod] == 0 && !done[rule]) {
                done[rule] = 1;
                ready[n_ready++] = rule;
            }
        }
    }
    bool yes = done[sym];
    free(first);
    free(ready);
    free(wait);
    free(done);
    free(missing);
    return yes;
}
