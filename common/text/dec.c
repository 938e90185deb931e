#include "common/text/dec.h"

#include "common/text/bytelevel.h"

#include <stdlib.h>

void dec_fini(struct dec *d) {
    for (size_t i = 0; i < d->n_steps; i++) {
        free(d->steps[i].text);
        free(d->steps[i].with);
        pattern_free(d->steps[i].pattern);
    }
    *d = (struct dec){0};
}

/* replace_all: every occurrence of from in b, from left to right. */
static void replace_all(struct buf *b, struct str from, struct str to) {
    const char *hit = b->len ? memmem(b->data, b->len, from.p, from.n) : NULL;
    if (!hit)
        return;
    struct buf out = {0};
    size_t done = 0;
    while (hit) {
        size_t at = (size_t)(hit - b->data);
        buf_add(&out, b->data + done, at - done);
        buf_add_str(&out, to);
        done = at + from.n;
        hit = memmem(b->data + done, b->len - done, from.p, from.n);
    }
    buf_add(&out, b->data + done, b->len - done);
    buf_fini(b);
    *b = out;
}

static void replace_matches(struct buf *b, const struct pattern *pattern, struct str to) {
    struct buf out = {0};
    struct pattern_scan scan;
    size_t done = 0, begin, end;
    if (b->len == 0)
        return;
    pattern_scan_init(&scan, pattern, b->data, b->len);
    while (pattern_next(&scan, &begin, &end)) {
        buf_add(&out, b->data + done, begin - done);
        buf_add_str(&out, to);
        done = end;
    }
    pattern_scan_fini(&scan);
    buf_add(&out, b->data + done, b->len - done);
    buf_fini(b);
    *b = out;
}

/* clean_up: the fixed rules of the WordPiece decoder, one after another. */
static void clean_up(struct buf *b) {
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        replace_all(b, str_of(rules[i][0]), str_of(rules[i][1]));
}

static void put_front(struct buf *b, char c) {
    buf_addc(b, c);
    memmove(b->data + 1, b->data, b->len - 1);
    b->data[0] = c;
}

static void run_step(const struct dec_step *s, bool first, bool last, struct buf *b) {
    struct str text = {s->text, s->n_text};
    switch (s->kind) {
    case DEC_REPLACE:
        if (s->pattern)
            replace_matches(b, s->pattern, (struct str){s->with, s->n_with});
        else
            replace_all(b, text, (struct str){s->with, s->n_with});
        break;
    case DEC_CTC:
        replace_all(b, text, (struct str){0});
        if (s->cleanup) {
            clean_up(b);
            replace_all(b, (struct str){s->with, s->n_with}, STR_LIT(" "));
        }
        break;
    case DEC_META:
        replace_all(b, text, first && s->first_drops ? (struct str){0} : STR_LIT(" "));
        break;
    case DEC_WORDPIECE:
        if (!first && str_starts(buf_str(b), text))
            buf_drop(b, text.n);
        else if (!first)
            put_front(b, ' ');
        if (s->cleanup)
            clean_up(b);
        break;
    case DEC_STRIP:
        for (size_t i = 0; i < s->n_start && str_starts(buf_str(b), text); i++)
            buf_drop(b, text.n);
        for (size_t i = 0; i < s->n_stop && b->len >= text.n &&
                           memcmp(b->data + b->len - text.n, text.p, text.n) == 0; i++)
            b->len -= text.n;
        break;
    case DEC_SUFFIX:
        replace_all(b, text, last ? (struct str){0} : STR_LIT(" "));
        break;
    case DEC_SPACE_JOIN:
        if (!first)
            put_front(b, ' ');
        break;
    }
}

void dec_piece(const struct dec *d, struct str piece, bool first, bool last, struct buf *out) {
    struct buf b = {0};
    buf_add_str(&b, piece);
    for (size_t i = 0; i < d->n_steps; i++)
        run_step(&d->steps[i], first, last, &b);
    size_t n = SIZE_MAX;
    if (d->end == DEC_BYTE_LEVEL && b.len) {
        char *to = buf_reserve(out, b.len);
        n = byte_level_decode(buf_str(&b), to);
        out->len += n == SIZE_MAX ? 0 : n;
    }
    if (n == SIZE_MAX)
        buf_add_str(out, buf_str(&b));
    buf_fini(&b);
}

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool dec_byte(const struct dec *d, struct str decoded, uint8_t *byte) {
    if (d->end != DEC_BYTE_FALLBACK || decoded.n != 6 || memcmp(decoded.p, "<0x", 3) != 0 ||
        decoded.p[5] != '>')
        return false;
    int high = hex(decoded.p[3]), low = hex(decoded.p[4]);
    if (high < 0 || low < 0)
        return false;
    *byte = (uint8_t)(high << 4 | low);
    return true;
}
