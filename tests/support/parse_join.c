#include "tests/support/parse_join.h"

#include <stdio.h>

#include "common/hash.h"

static void on_part(void *arg, enum parse_part part, struct str text) {
    struct join *j = arg;
    CHECK(text.n > 0);
    for (size_t i = 0; i < text.n; i++)
        CHECK((unsigned char)text.p[i] < (unsigned char)PARSE_MARK_BYTE(0));
    switch (part) {
    case PARSE_CONTENT:
        buf_add_str(&j->content, text);
        break;
    case PARSE_REASONING:
        CHECK(j->n_calls == 0);
        buf_add_str(&j->reasoning, text);
        break;
    case PARSE_CALL:
        buf_addz(&j->calls, j->n_calls++ ? ")\n" : "");
        buf_add_str(&j->calls, text);
        buf_addc(&j->calls, '(');
        break;
    case PARSE_ARGUMENTS:
        CHECK(j->n_calls > 0);
        buf_add_str(&j->calls, text);
        break;
    }
}

void join_start(struct join *j, const struct parse_opts *o) {
    *j = (struct join){0};
    j->p = parse_new(o, (struct parse_sink){on_part, j});
}

void join_push(struct join *j, struct str text) {
    parse_push(j->p, text);
}

void join_end(struct join *j) {
    parse_end(j->p);
    j->in_reasoning = parse_reasons(j->p);
    if (j->n_calls)
        buf_addz(&j->calls, ")\n");
}

void join_fini(struct join *j) {
    parse_free(j->p);
    buf_fini(&j->reasoning);
    buf_fini(&j->content);
    buf_fini(&j->calls);
}

void join_text(const struct join *j, struct buf *out) {
    buf_add_str(out, buf_str(&j->reasoning));
    buf_addc(out, '|');
    buf_add_str(out, buf_str(&j->content));
    buf_addc(out, '|');
    buf_add_str(out, buf_str(&j->calls));
}

void join_pieces(const struct parse_opts *o, struct str text, size_t most, uint64_t seed, struct buf *out) {
    struct join j;
    join_start(&j, o);
    for (size_t at = 0; at < text.n;) {
        size_t n = 1 + (size_t)(hash_u64(seed + at) % most);
        n = MIN(n, text.n - at);
        join_push(&j, (struct str){text.p + at, n});
        at += n;
    }
    join_end(&j);
    join_text(&j, out);
    join_fini(&j);
}

void join_whole(const struct parse_opts *o, struct str text, struct buf *out) {
    struct join j;
    join_start(&j, o);
    join_push(&j, text);
    join_end(&j);
    join_text(&j, out);
    join_fini(&j);
}

bool join_gives(const struct parse_opts *o, const char *text, const char *want) {
    struct buf got = {0};
    bool same = true;
    for (uint64_t seed = 0; seed < 40 && same; seed++) {
        got.len = 0;
        if (seed == 0)
            join_whole(o, str_of(text), &got);
        else
            join_pieces(o, str_of(text), (size_t)seed, seed, &got);
        same = str_eqz(buf_str(&got), want);
        if (!same)
            fprintf(stderr, "pieces of %u bytes at most: %s\n got %s\nwant %s\n", (unsigned)seed, text,
                    buf_cstr(&got), want);
    }
    buf_fini(&got);
    return same;
}
