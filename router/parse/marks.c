#include "router/parse/private.h"

void marks_set(struct marks *s, const struct str *m, size_t n, unsigned slot) {
    CHECK(s->n_tail == 0);
    s->m = m;
    s->n = n;
    s->slot = slot;
    for (size_t i = 0; i < n; i++)
        CHECK(m[i].n > 0 && m[i].n <= MARK_BYTES_MAX);
}

void marks_rest(struct marks *s, struct buf *loose) {
    buf_add(loose, s->tail, s->n_tail);
    s->n_tail = 0;
}

/* begins: some mark starts with n bytes of text; *whole: it is all of one, with that index. */
static bool begins(const struct marks *s, const char *text, size_t n, int *whole) {
    for (size_t i = 0; i < s->n; i++)
        if (n <= s->m[i].n && memcmp(text, s->m[i].p, n) == 0) {
            if (n == s->m[i].n)
                *whole = (int)i;
            return true;
        }
    return false;
}

/* may_begin: some mark starts with c. */
static bool may_begin(const struct marks *s, char c) {
    for (size_t i = 0; i < s->n; i++)
        if (s->m[i].p[0] == c)
            return true;
    return false;
}

int marks_byte(struct marks *s, char c, struct buf *loose) {
    if (is_hidden(c)) {
        unsigned i = (unsigned)((unsigned char)c - (unsigned char)PARSE_MARK_BYTE(0));
        marks_rest(s, loose);
        if (i >= s->slot && i - s->slot < s->n)
            return (int)(i - s->slot);
        buf_addc(loose, c);
        return -1;
    }
    if (s->n_tail == 0 && !may_begin(s, c)) {
        buf_addc(loose, c);
        return -1;
    }
    int whole = -1;
    s->tail[s->n_tail++] = c; /* the tail was shorter than a mark, so there is room */
    size_t from = 0;
    while (from < s->n_tail && !begins(s, s->tail + from, s->n_tail - from, &whole))
        from++;
    if (from) {
        buf_add(loose, s->tail, from);
        memmove(s->tail, s->tail + from, s->n_tail - from);
        s->n_tail -= from;
    }
    if (whole >= 0)
        s->n_tail = 0;
    return whole;
}
