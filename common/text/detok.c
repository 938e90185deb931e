#include "common/text/detok.h"

#include "common/text/tok_impl.h"
#include "common/text/uni.h"
#include "common/utf8.h"

/* spaces_between_special changes nothing: Hugging Face's fast tokenizers ignore it too.
 * clean_up_tokenization_spaces ("a ." to "a.") is not applied either: it would change text that is meant as
 * it is, code above all, and transformers leaves BPE alone as well. */

enum { N_HELD_MAX = 3 }; /* an incomplete character */

void detok_init(struct detok *d, const struct tok *t, const uint32_t *prompt_tail, size_t n_tail,
                bool skip_special, bool spaces_between_special) {
    *d = (struct detok){.tok = t,
                        .skip_special = skip_special,
                        .spaces_between_special = spaces_between_special,
                        .at_start = true};
    for (size_t i = 0; i < n_tail; i++)
        d->at_start &=
            prompt_tail[i] >= tok_vocab_size(t) || (skip_special && tok_is_special(t, prompt_tail[i]));
    d->has_before = n_tail > 0 && prompt_tail[n_tail - 1] < tok_vocab_size(t);
    if (d->has_before)
        d->before = prompt_tail[n_tail - 1];
    d->after_special = n_tail > 0 && tok_is_special(t, prompt_tail[n_tail - 1]);
    if (d->at_start)
        d->n_strip = (uint32_t)MIN(t->dec.n_strip, (size_t)UINT32_MAX);
}

/* put_kept: text that no strip at the front touches; what one at the end may take is held back. */
static void put_kept(struct detok *d, const char *p, size_t n, struct buf *out) {
    const char *strip = d->tok->dec.strip;
    size_t n_stop = d->tok->dec.n_strip_stop, n_strip = strlen(strip), k = 0;
    while (k < n_stop && (k + 1) * n_strip <= n && memcmp(p + n - (k + 1) * n_strip, strip, n_strip) == 0)
        k++;
    for (; d->n_tail && (k * n_strip < n || d->n_tail + k > n_stop); d->n_tail--)
        buf_add(out, strip, n_strip);
    buf_add(out, p, n - k * n_strip);
    d->n_tail += (uint32_t)k;
}

/* put: text to out, less the characters that the decoder strips from the whole text's front and end. */
static void put(struct detok *d, const char *p, size_t n, struct buf *out) {
    const char *strip = d->tok->dec.strip;
    size_t n_strip = d->n_strip ? strlen(strip) : 0;
    while (d->n_strip && n) {
        if (n < n_strip || memcmp(p, strip, n_strip) != 0) {
            d->n_strip = 0;
            break;
        }
        p += n_strip;
        n -= n_strip;
        d->n_strip--;
    }
    if (n && d->tok->dec.n_strip_stop)
        put_kept(d, p, n, out);
    else
        buf_add(out, p, n);
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

/* push_utf8: bytes of a stream that is read as UTF-8 as a whole. */
static void push_utf8(struct detok *d, struct str s, struct buf *out) {
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

/* ---- byte fallback ---- */

static void put_bad(struct detok *d, size_t n, struct buf *out) {
    for (size_t i = 0; i < n; i++)
        put(d, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT), out);
}

/* run_push: one byte of a run. */
static void run_push(struct detok *d, uint8_t byte, struct buf *out) {
    size_t len;
    if (d->run_is_bad) {
        put_bad(d, 1, out);
        return;
    }
    d->pending[d->n_pending++] = byte;
    const char *p = (const char *)d->pending;
    size_t valid = uni_valid_n(p, d->n_pending);
    if (valid < d->n_pending && uni_step(p + valid, d->n_pending - valid, &len) == UNI_INVALID) {
        d->run_is_bad = true;
        put_bad(d, d->n_pending, out);
        d->n_pending = 0;
    } else if (d->n_pending > DETOK_RUN_MAX) {
        put(d, p, valid, out);
        d->n_pending = (uint8_t)(d->n_pending - valid);
        memmove(d->pending, d->pending + valid, d->n_pending);
    }
}

/* run_end: another token, or none, follows the run. */
static void run_end(struct detok *d, struct buf *out) {
    const char *p = (const char *)d->pending;
    if (uni_valid_n(p, d->n_pending) == d->n_pending)
        put(d, p, d->n_pending, out);
    else
        put_bad(d, d->n_pending, out);
    d->n_pending = 0;
    d->run_is_bad = false;
}

/* ---- tokens ---- */

/* emit: the text of one token. */
static void emit(struct detok *d, uint32_t id, bool last, struct buf *out) {
    const struct tok *t = d->tok;
    bool first = d->at_start;
    struct str s = tok_bytes(t, id);
    d->at_start = false;
    if (t->dec.end == DEC_BYTE_LEVEL && (t->dec.n_strip || t->dec.n_strip_stop)) {
        struct buf own = {0};
        push_utf8(d, s, &own);
        put(d, own.data, own.len, out);
        buf_fini(&own);
    } else if (t->dec.end == DEC_BYTE_LEVEL) {
        push_utf8(d, s, out);
    } else if (t->flags[id] & TOK_IS_BYTE) {
        run_push(d, (uint8_t)*s.p, out);
    } else {
        struct buf own = {0};
        if ((first && t->dec.first_differs) || last) {
            dec_piece(&t->dec, tok_shown(t, id), first, last, &own);
            s = buf_str(&own);
        }
        run_end(d, out);
        put(d, s.p, s.n, out);
        buf_fini(&own);
    }
}

void detok_push(struct detok *d, uint32_t id, struct buf *out) {
    bool special = tok_is_special(d->tok, id);
    if (id >= tok_vocab_size(d->tok) || !tok_shown(d->tok, id).n || (special && d->skip_special))
        return;
    d->after_special = special;
    if (d->tok->dec.no_repeats && d->has_before && str_eq(tok_shown(d->tok, d->before), tok_shown(d->tok, id)))
        return;
    d->has_before = true;
    d->before = id;
    if (!d->tok->dec.last_differs) {
        emit(d, id, false, out);
        return;
    }
    if (d->has_held)
        emit(d, d->held, false, out);
    d->held = id;
    d->has_held = true;
}

void detok_finish(struct detok *d, struct buf *out) {
    if (d->has_held)
        emit(d, d->held, true, out);
    d->has_held = false;
    if (d->tok->dec.end == DEC_BYTE_FALLBACK)
        run_end(d, out);
    else if (d->n_pending)
        put_bad(d, 1, out);
    d->n_pending = 0;
    d->n_tail = 0;
}

void detok_all(const struct tok *t, const uint32_t *ids, size_t n, bool skip_special, struct buf *out) {
    struct detok d;
    detok_init(&d, t, NULL, 0, skip_special, false);
    for (size_t i = 0; i < n; i++)
        detok_push(&d, ids[i], out);
    detok_finish(&d, out);
}
