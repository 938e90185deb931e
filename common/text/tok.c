#include "common/text/tok_impl.h"

#include "common/text/nfc.h"
#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

void tok_ids_fini(struct tok_ids *ids) {
    free(ids->v);
    *ids = (struct tok_ids){0};
}

void tok_ids_push(struct tok_ids *ids, uint32_t id) {
    if (UNLIKELY(ids->n == ids->cap)) {
        ids->cap = MAX(ids->cap + ids->cap / 2, (size_t)64);
        ids->v = xreallocarray(ids->v, ids->cap, sizeof *ids->v);
    }
    ids->v[ids->n++] = id;
}

/* ---- encoding ---- */

/* split_from: pre-tokenises a piece from a step on, and encodes what the last step leaves. Recursion
 * is as deep as there are steps. */
static void split_from(const struct tok *t, size_t step, const char *p, size_t n, struct tok_ids *out) {
    if (step == t->n_steps) {
        t->ops->encode(t->model, p, n, out);
        return;
    }
    split_fn *split = t->steps[step].split;
    if (!split) {
        if (p[0] == ' ') {
            split_from(t, step + 1, p, n, out);
            return;
        }
        char *spaced = xmalloc(n + 1);
        spaced[0] = ' ';
        memcpy(spaced + 1, p, n);
        split_from(t, step + 1, spaced, n + 1, out);
        free(spaced);
        return;
    }
    bool last = step + 1 == t->n_steps;
    for (size_t at = 0; at < n;) {
        size_t end = split(p, at, n);
        if (last)
            t->ops->encode(t->model, p + at, end - at, out);
        else
            split_from(t, step + 1, p + at, end - at, out);
        at = end;
    }
}

/* What to do with the text between added tokens. */
typedef void piece_fn(const struct tok *t, const char *p, size_t n, size_t at, const struct tok_mark *marks,
                      size_t n_marks, struct tok_ids *out);

static void encode_piece(const struct tok *t, const char *p, size_t n, size_t at UNUSED,
                         const struct tok_mark *marks UNUSED, size_t n_marks UNUSED, struct tok_ids *out) {
    if (n)
        split_from(t, 0, p, n, out);
}

static bool is_word(uint32_t cp) {
    return uni_flags(cp) & UNI_WORD;
}

static bool stands_alone(const char *p, size_t n, size_t begin, size_t end) {
    size_t len;
    return (begin == 0 || !is_word(uni_decode(p + uni_prev(p, begin), &len))) &&
           (end == n || !is_word(uni_decode(p + end, &len)));
}

/* scan: cuts text at the tokens of a and gives ids for them, and what lies between to piece. A token
 * with lstrip or rstrip takes the spaces beside it. As in Hugging Face tokenizers a match that
 * single_word forbids is passed over whole, and a token that starts inside spaces which rstrip took
 * is still found. space_end remembers how far a run of spaces was read, for linear time. */
static void scan(const struct tok *t, const struct added *a, const char *p, size_t n,
                 const struct tok_mark *marks, size_t n_marks, piece_fn *piece, struct tok_ids *out) {
    struct added_scan s;
    struct added_match m;
    size_t done = 0, space_end = 0, len;
    added_scan_init(&s, a, p, n, marks, n_marks);
    while (added_next(&s, &m)) {
        if (m.token->single_word && !stands_alone(p, n, m.begin, m.end))
            continue;
        if (m.token->lstrip) {
            while (m.begin > done && uni_kind(uni_decode(p + uni_prev(p, m.begin), &len)) == UNI_SPACE)
                m.begin = uni_prev(p, m.begin);
            m.begin = MAX(m.begin, done);
        }
        if (m.token->rstrip) {
            if (space_end < m.end)
                for (space_end = m.end; space_end < n; space_end += len)
                    if (uni_kind(uni_decode(p + space_end, &len)) != UNI_SPACE)
                        break;
            m.end = space_end;
        }
        if (m.begin >= m.end) /* rstrip took all of it, and lstrip found nothing else */
            continue;
        if (done < m.begin)
            piece(t, p + done, m.begin - done, done, marks, n_marks, out);
        tok_ids_push(out, m.token->id);
        done = m.end;
    }
    if (done != n)
        piece(t, p + done, n - done, done, marks, n_marks, out);
    added_scan_fini(&s);
}

/* marks_within: the marks that reach into [at, at + n), relative to at, in new memory; NULL if none. */
static struct tok_mark *marks_within(const struct tok_mark *marks, size_t n_marks, size_t at, size_t n,
                                     size_t *n_own) {
    size_t low = 0, high = n_marks;
    while (low < high) { /* the first that ends behind at */
        size_t mid = low + (high - low) / 2;
        if (marks[mid].end <= at)
            low = mid + 1;
        else
            high = mid;
    }
    for (high = low; high < n_marks && marks[high].begin < at + n;)
        high++;
    *n_own = high - low;
    if (low == high)
        return NULL;
    struct tok_mark *own = xreallocarray(NULL, high - low, sizeof *own);
    for (size_t i = low; i < high; i++)
        own[i - low] = (struct tok_mark){MAX(marks[i].begin, at) - at, MIN(marks[i].end, at + n) - at};
    return own;
}

/* marks_normalise: moves marks from source positions to those in the normal form. */
static void marks_normalise(const char *p, size_t n, struct buf *out, struct tok_mark *marks,
                            size_t n_marks) {
    size_t *at = xreallocarray(NULL, 2 * n_marks, sizeof *at);
    bool *up = xreallocarray(NULL, 2 * n_marks, sizeof *up);
    for (size_t i = 0; i < n_marks; i++) {
        at[2 * i] = marks[i].begin;
        at[2 * i + 1] = marks[i].end;
        up[2 * i] = false;
        up[2 * i + 1] = true;
    }
    nfc(p, n, out, &(struct nfc_map){at, 2 * n_marks, up});
    for (size_t i = 0; i < n_marks; i++)
        marks[i] = (struct tok_mark){at[2 * i], at[2 * i + 1]};
    free(at);
    free(up);
}

/* normal_piece: a piece between raw added tokens: normalise, then search the normalised ones. */
static void normal_piece(const struct tok *t, const char *p, size_t n, size_t at,
                         const struct tok_mark *marks, size_t n_marks, struct tok_ids *out) {
    struct buf text = {0};
    struct tok_mark *own = NULL;
    size_t n_own = 0;
    if (n_marks && t->norm_added.n_tokens)
        own = marks_within(marks, n_marks, at, n, &n_own);
    if (t->nfc && nfc_unchanged_n(p, n) < n) {
        marks_normalise(p, n, &text, own, n_own);
        p = text.data;
        n = text.len;
    }
    scan(t, &t->norm_added, p, n, own, n_own, encode_piece, out);
    free(own);
    buf_fini(&text);
}

/* repair: text with U+FFFD for what is not UTF-8, as a lossy decoder writes it; marks move along. A
 * mark that cuts a character in two grows to hold it. */
static void repair(const char *p, size_t n, struct tok_mark *marks, size_t n_marks, struct buf *out) {
    size_t next = 0; /* of 2 * n_marks ends, in order */
    for (size_t i = 0, len; i < n; i += len) {
        size_t before = out->len;
        if (uni_step(p + i, n - i, &len) == UNI_VALID)
            buf_add(out, p + i, len);
        else
            buf_addz(out, UTF8_REPLACEMENT);
        for (; next < 2 * n_marks; next++) {
            bool is_end = next % 2;
            size_t *at = is_end ? &marks[next / 2].end : &marks[next / 2].begin;
            if (*at >= i + len)
                break;
            *at = is_end && *at > i ? out->len : before;
        }
    }
    for (; next < 2 * n_marks; next++)
        *(next % 2 ? &marks[next / 2].end : &marks[next / 2].begin) = out->len;
}

void tok_encode(const struct tok *t, const char *text, size_t n, const struct tok_mark *marks, size_t n_marks,
                unsigned flags, struct tok_ids *out) {
    CHECK(n < UINT32_MAX / 4);
    struct buf repaired = {0};
    struct tok_mark *own = NULL;
    size_t n_own = 0;
    if (n_marks) {
        own = xreallocarray(NULL, n_marks, sizeof *own);
        for (size_t i = 0; i < n_marks; i++) {
            CHECK(marks[i].begin <= marks[i].end && marks[i].end <= n);
            CHECK(i == 0 || marks[i].begin >= marks[i - 1].end);
            if (marks[i].begin < marks[i].end)
                own[n_own++] = marks[i];
        }
    }
    if (uni_valid_n(text, n) < n) {
        repair(text, n, own, n_own, &repaired);
        text = repaired.data;
        n = repaired.len;
    }
    if (flags & TOK_ADD_SPECIAL)
        for (size_t i = 0; i < t->n_front; i++)
            tok_ids_push(out, t->front[i]);
    if (n)
        scan(t, &t->raw_added, text, n, own, n_own, normal_piece, out);
    if (flags & TOK_ADD_SPECIAL)
        for (size_t i = 0; i < t->n_back; i++)
            tok_ids_push(out, t->back[i]);
    free(own);
    buf_fini(&repaired);
}

/* ---- what a tokenizer knows ---- */

void tok_n_special(const struct tok *t, size_t *n_front, size_t *n_back) {
    *n_front = t->n_front;
    *n_back = t->n_back;
}

uint32_t tok_vocab_size(const struct tok *t) {
    return t->pieces.n;
}

struct str tok_piece(const struct tok *t, uint32_t id) {
    return id < t->pieces.n ? slices_get(&t->pieces, id) : (struct str){0};
}

struct str tok_bytes(const struct tok *t, uint32_t id) {
    return id < t->bytes.n ? slices_get(&t->bytes, id) : (struct str){0};
}

bool tok_is_special(const struct tok *t, uint32_t id) {
    return id < t->pieces.n && (t->flags[id] & TOK_IS_SPECIAL);
}

bool tok_is_added(const struct tok *t, uint32_t id) {
    return id < t->pieces.n && (t->flags[id] & TOK_IS_ADDED);
}

bool tok_find(const struct tok *t, struct str s, uint32_t *id) {
    return s.n && idmap_find(&t->by_piece, &t->pieces, s, id);
}

bool tok_bos(const struct tok *t, uint32_t *id) {
    if (t->has_bos)
        *id = t->bos;
    return t->has_bos;
}

bool tok_eos(const struct tok *t, uint32_t *id) {
    if (t->has_eos)
        *id = t->eos;
    return t->has_eos;
}
