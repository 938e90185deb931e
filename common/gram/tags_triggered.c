/* tags_triggered.c: tags behind triggers, and tags between separators. */
#include "common/gram/tags.h"

#include <stdlib.h>

struct triggered {
    struct str *triggers; /* sorted */
    size_t n_triggers;
    struct tag *tags;
    size_t n_tags;
    const char *list; /* the tags' member, for pointers */
    bool at_least_one, stop_after_first;
    struct str stop; /* the end of the tag around all this; free text does not hold it */
};

static int str_order(const void *a, const void *b) {
    const struct str *x = a, *y = b;
    int d = memcmp(x->p, y->p, MIN(x->n, y->n));
    return d ? d : (x->n > y->n) - (x->n < y->n);
}

static enum rc read_triggers(struct tags *t, const json_t *o, struct triggered *d) {
    const json_t *list;
    enum rc rc = tags_want_list(t, o, "triggers", &list);
    if (rc)
        return rc;
    d->triggers = xreallocarray(NULL, json_array_size(list), sizeof *d->triggers);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        struct str s = {json_string_value(v), json_string_length(v)};
        if (!s.n)
            return tags_bad(t, "triggers", "must be strings that are not empty");
        d->triggers[d->n_triggers++] = s;
    }
    qsort(d->triggers, d->n_triggers, sizeof *d->triggers, str_order);
    /* In this order a string that begins others stands directly before one of them. */
    for (size_t i = 1; i < d->n_triggers; i++)
        if (str_starts(d->triggers[i], d->triggers[i - 1]))
            return tags_bad(t, "triggers", "must not begin with one another");
    return RC_OK;
}

static enum rc read_tags(struct tags *t, const json_t *o, bool schema, struct triggered *d) {
    const json_t *list;
    enum rc rc = tags_want_list(t, o, d->list, &list);
    if (rc)
        return rc;
    d->tags = xcalloc(json_array_size(list), sizeof *d->tags);
    for (; d->n_tags < json_array_size(list); d->n_tags++) {
        size_t was = tags_path_index(t, d->list, d->n_tags);
        d->tags[d->n_tags].at = d->n_tags;
        if ((rc = tags_read_tag(t, json_array_get(list, d->n_tags), schema, &d->tags[d->n_tags])))
            return rc;
        tags_path_up(t, was);
    }
    return RC_OK;
}

/* trigger_of: the trigger that s begins with; n_triggers if there is none. No trigger begins another one, so
 * it is the last that is not behind s in order. */
static size_t trigger_of(const struct triggered *d, struct str s) {
    size_t lo = 0, hi = d->n_triggers;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (str_order(&d->triggers[mid], &s) <= 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo && str_starts(s, d->triggers[lo - 1]) ? lo - 1 : d->n_triggers;
}

/* add_items: to rule `item`, for each tag: free text up to its trigger, then the rest of the tag. */
static enum rc add_items(struct tags *t, const struct triggered *d, uint32_t item) {
    struct gram *g = t->g;
    uint32_t all = tags_rx_strings(g, d->triggers, d->n_triggers, d->stop),
             ends = tags_rx_first_at_end(t, all);
    uint32_t *bodies = xreallocarray(NULL, d->n_triggers, sizeof *bodies);
    enum rc rc = RC_OK;
    for (size_t i = 0; i < d->n_triggers; i++)
        bodies[i] = RX_INF;
    for (size_t i = 0; i < d->n_tags && rc == RC_OK; i++) {
        const struct tag *tag = &d->tags[i];
        size_t was = tags_path_index(t, d->list, tag->at), k = trigger_of(d, tag->begin);
        if (k == d->n_triggers) {
            rc = tags_bad(t, "begin", "does not start with any of the triggers");
            break;
        }
        uint32_t sym;
        if ((rc = tags_add_body(t, tag, d->triggers[k].n, &sym)))
            break;
        tags_path_up(t, was);
        if (bodies[k] == RX_INF) {
            bodies[k] = tags_new_rule(g);
            uint32_t until = rx_and(g, rx_cat(g, RX_ANY, rx_bytes(g, d->triggers[k])), ends);
            tags_add_pair(g, item, gram_term(g, until, 0), bodies[k]);
        }
        gram_prod(g, bodies[k], &sym, 1);
    }
    free(bodies);
    return rc;
}

static enum rc add_triggered(struct tags *t, const struct triggered *d, uint32_t *sym) {
    struct gram *g = t->g;
    uint32_t item = tags_new_rule(g), start = tags_new_rule(g), items;
    enum rc rc = add_items(t, d, item);
    if (rc)
        return rc;
    uint32_t text =
        gram_term(g, tags_rx_without(g, tags_rx_strings(g, d->triggers, d->n_triggers, d->stop)), 0);
    if (d->stop_after_first) {
        gram_prod(g, start, &item, 1);
        if (!d->at_least_one)
            gram_prod(g, start, &text, 1);
    } else {
        items = tags_new_rule(g);
        gram_prod(g, items, &item, d->at_least_one ? 1 : 0);
        tags_add_pair(g, items, items, item);
        tags_add_pair(g, start, items, text);
    }
    *sym = start;
    return RC_OK;
}

enum rc tags_triggered(struct tags *t, const json_t *o, bool legacy, struct str stop, uint32_t *sym) {
    static const char *const new_keys[] = {"type",         "triggers",         "tags",
                                           "at_least_one", "stop_after_first", NULL};
    static const char *const old_keys[] = {"type", "structures", "triggers", NULL};
    struct triggered d = {.list = legacy ? "structures" : "tags", .stop = stop};
    enum rc rc = tags_want_only(t, o, legacy ? old_keys : new_keys);
    if (rc == RC_OK)
        rc = tags_want_bool(t, o, "at_least_one", &d.at_least_one);
    if (rc == RC_OK)
        rc = tags_want_bool(t, o, "stop_after_first", &d.stop_after_first);
    if (rc == RC_OK)
        rc = read_triggers(t, o, &d);
    if (rc == RC_OK)
        rc = read_tags(t, o, legacy, &d);
    if (rc == RC_OK)
        rc = add_triggered(t, &d, sym);
    free(d.triggers);
    free(d.tags);
    return rc;
}

enum rc tags_separated(struct tags *t, const json_t *o, uint32_t *sym) {
    static const char *const keys[] = {"type", "tags", "separator", "at_least_one", "stop_after_first", NULL};
    bool one, stop;
    struct str separator;
    const json_t *list;
    enum rc rc = tags_want_only(t, o, keys);
    if (rc == RC_OK)
        rc = tags_want_bool(t, o, "at_least_one", &one);
    if (rc == RC_OK)
        rc = tags_want_bool(t, o, "stop_after_first", &stop);
    if (rc == RC_OK)
        rc = tags_want_string(t, o, "separator", true, &separator);
    if (rc == RC_OK)
        rc = tags_want_list(t, o, "tags", &list);
    if (rc)
        return rc;
    uint32_t any = tags_new_rule(t->g);
    for (size_t i = 0; i < json_array_size(list); i++) {
        uint32_t tag;
        size_t was = tags_path_index(t, "tags", i);
        if ((rc = tags_add_tag(t, json_array_get(list, i), &tag)))
            return rc;
        tags_path_up(t, was);
        gram_prod(t->g, any, &tag, 1);
    }
    uint32_t between = separator.n ? gram_term(t->g, rx_bytes(t->g, separator), 0) : UINT32_MAX;
    *sym = gram_repeat(t->g, any, between, one, stop ? 1 : RX_INF);
    return RC_OK;
}
