#include "common/text/detok.h"

#include "common/text/uni.h"
#include "common/utf8.h"

/* The kinds of tokenizer here decode every token to the same bytes wherever it stands, so neither the
 * prompt's tail nor spaces between special tokens change anything: Hugging Face's fast tokenizers
 * ignore the latter too. clean_up_tokenization_spaces ("a ." to "a.") is not applied either: it would
 * change text that is meant as it is, code above all, and transformers leaves BPE alone as well. */

enum { N_HELD_MAX = 3 }; /* an incomplete character */

void detok_init(struct detok *d, const struct tok *t, const uint32_t *prompt_tail, size_t n_tail,
                bool skip_special, bool spaces_between_special) {
    *d = (struct detok){.tok = t,
                        .skip_special = skip_special,
                        .spaces_between_special = spaces_between_special,
                        .at_start = n_tail == 0};
    d->after_special = n_tail > 0 && tok_is_special(t, prompt_tail[n_tail - 1]);
}

/* push_bytes: appends the characters of p[0 .. n), invalid ones as U+FFFD; returns how many bytes at
 * the end begin a character. */
static size_t push_bytes(const char *p, size_t n, struct buf *out) {
    for (size_t i = 0, len;;) {
        size_t valid = uni_valid_n(p + i, n - i);
        buf_add(out, p + i, valid);
        i += valid;
        if (i == n)
            return 0;
        if (uni_step(p + i, n - i, &len) == UNI_CUT)
            return n - i;
        buf_addz(out, UTF8_REPLACEMENT);
        i += len;
    }
}

void detok_push(struct detok *d, uint32_t id, struct buf *out) {
    bool special = tok_is_special(d->tok, id);
    if (special && d->skip_special)
        return;
    struct str s = tok_bytes(d->tok, id);
    d->at_start = false;
    d->after_special = special;
    /* Complete the pending character a byte at a time; what follows it goes in one go. */
    while (d->n_pending && s.n) {
        size_t len;
        d->pending[d->n_pending++] = (uint8_t)*s.p;
        enum uni_step step = uni_step((const char *)d->pending, d->n_pending, &len);
        if (step == UNI_INVALID) { /* what was pending is; this byte starts anew */
            CHECK(len == (size_t)d->n_pending - 1);
            buf_addz(out, UTF8_REPLACEMENT);
            d->n_pending = 0;
            break;
        }
        s.p++;
        s.n--;
        if (step == UNI_VALID) {
            buf_add(out, d->pending, d->n_pending);
            d->n_pending = 0;
        }
    }
    if (!s.n)
        return;
    size_t left = push_bytes(s.p, s.n, out);
    CHECK(left <= N_HELD_MAX);
    memcpy(d->pending, s.p + s.n - left, left);
    d->n_pending = (uint8_t)left;
}

void detok_finish(struct detok *d, struct buf *out) {
    if (d->n_pending)
        buf_addz(out, UTF8_REPLACEMENT);
    d->n_pending = 0;
}

void detok_all(const struct tok *t, const uint32_t *ids, size_t n, bool skip_special, struct buf *out) {
    struct detok d;
    detok_init(&d, t, NULL, 0, skip_special, false);
    for (size_t i = 0; i < n; i++)
        detok_push(&d, ids[i], out);
    detok_finish(&d, out);
}
