#include "common/text/stop.h"

#include <stdlib.h>

struct stop_string {
    char *p;
    uint32_t *fail; /* [n + 1] length of the longest border of the first k bytes */
    uint32_t n;
};

struct stop_set {
    size_t n;
    struct stop_string v[];
};

/* advance: the number of bytes matched after one more byte, from k < n or, after a match, k == n. */
static inline uint32_t advance(const struct stop_string *s, uint32_t k, char c) {
    if (k == s->n)
        k = s->fail[k];
    while (k && s->p[k] != c)
        k = s->fail[k];
    return s->p[k] == c ? k + 1 : 0;
}

struct stop_set *stop_set_new(const struct str *strings, size_t n) {
    if (n == 0)
        return NULL;
    struct stop_set *set = xcalloc(1, sizeof *set + n * sizeof set->v[0]);
    set->n = n;
    for (size_t i = 0; i < n; i++) {
        struct stop_string *s = &set->v[i];
        CHECK(strings[i].n > 0 && strings[i].n < UINT32_MAX);
        s->p = xstrndup(strings[i].p, strings[i].n);
        s->n = (uint32_t)strings[i].n;
        s->fail = xcalloc((size_t)s->n + 1, sizeof *s->fail);
        for (uint32_t k = 1; k < s->n; k++) {
            uint32_t border = s->fail[k];
            while (border && s->p[border] != s->p[k])
                border = s->fail[border];
            s->fail[k + 1] = s->p[border] == s->p[k] ? border + 1 : 0;
        }
    }
    return set;
}

void stop_set_free(struct stop_set *set) {
    for (size_t i = 0; set && i < set->n; i++) {
        free(set->v[i].p);
        free(set->v[i].fail);
    }
    free(set);
}

void stop_init(struct stop *s, const struct stop_set *set, bool include) {
    *s = (struct stop){.set = set, .include = include};
    if (set)
        s->state = xcalloc(set->n, sizeof *s->state);
}

void stop_fini(struct stop *s) {
    buf_fini(&s->held);
    free(s->state);
    *s = (struct stop){0};
}

/* release: the first n bytes of what is held and text behind it. */
static void release(struct stop *s, const char *text, size_t n, struct buf *out) {
    size_t from_held = MIN(n, s->held.len);
    buf_add(out, s->held.data, from_held);
    buf_drop(&s->held, from_held);
    buf_add(out, text, n - from_held);
}

int stop_push(struct stop *s, const char *text, size_t n, bool counts, struct buf *out) {
    size_t n_all = s->held.len + n, n_keep = 0;
    if (n == 0) /* a token whose text is still incomplete: nothing moves, and text may be NULL */
        return -1;
    for (size_t i = 0; s->set && i < s->set->n; i++) {
        const struct stop_string *string = &s->set->v[i];
        uint32_t k = s->state[i];
        for (size_t at = 0; at < n; at++) {
            k = advance(string, k, text[at]);
            if (k < string->n || !counts)
                continue;
            size_t end = s->held.len + at + 1;
            release(s, text, s->include ? end : end - string->n, out);
            s->held.len = 0;
            return (int)i;
        }
        /* A whole string matched too early to count is a prefix of nothing: only its border is. */
        s->state[i] = k == string->n ? string->fail[k] : k;
        n_keep = MAX(n_keep, s->state[i]);
    }
    if (s->include) /* a match cuts behind it, so nothing can be taken back */
        n_keep = 0;
    size_t n_out = n_all - n_keep, from_text = n_out > s->held.len ? n_out - s->held.len : 0;
    release(s, text, n_out, out);
    if (n) /* text may be NULL else */
        buf_add(&s->held, text + from_text, n - from_text);
    return -1;
}

void stop_flush(struct stop *s, struct buf *out) {
    release(s, NULL, s->held.len, out);
}
