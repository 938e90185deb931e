#include "common/text/tok_impl.h"

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

/* A text between added tokens. */
struct span {
    const char *p;
    size_t n;
    size_t n_front; /* of these bytes, all count as where the input begins */
    bool plain;     /* some of it is a client's */
    const struct tok_mark *marks;
    size_t n_marks;
};
/* What to do with it; at is where it starts in the text that was searched. */
typedef void piece_fn(const struct tok *t, const struct span *s, size_t at, struct tok_ids *out);

static void encode_piece(const struct tok *t, const struct span *s, size_t at UNUSED, struct tok_ids *out) {
    struct pre_sink sink = {s->plain ? t->ops->encode_plain : t->ops->encode, t->model, out};
    if (s->n)
        pre_run(&t->pre, s->p, s->n, s->n_front, &sink);
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
static void scan(const struct tok *t, const struct added *a, const struct span *text, piece_fn *piece,
                 struct tok_ids *out) {
    const char *p = text->p;
    size_t n = text->n;
    struct span between = *text;
    struct added_scan s;
    struct added_match m;
    size_t done = 0, space_end = 0, len;
    added_scan_init(&s, a, p, n, text->marks, text->n_marks);
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
        if (done < m.begin) {
            between.p = p + done;
            between.n = m.begin - done;
            between.n_front = done < text->n_front ? text->n_front - done : 0;
            piece(t, &between, done, out);
        }
        tok_ids_push(out, m.token->id);
        done = m.end;
    }
    if (done != n) {
        between.p = p + done;
        between.n = n - done;
        between.n_front = done < text->n_front ? text->n_front - done : 0;
        piece(t, &between, done, out);
    }
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

/* normalise: the normal form to out, marks moved from source positions to those in it. false: the text is
 * normal already. */
static bool normalise(const struct tok *t, const struct span *s, struct buf *out, struct tok_mark *marks,
                      size_t n_marks, size_t *front) {
    if (!n_marks)
        return norm_run(&t->norm, s->p, s->n, out, NULL, front);
    size_t *at = xreallocarray(NULL, 2 * n_marks, sizeof *at);
    bool *up = xreallocarray(NULL, 2 * n_marks, sizeof *up);
    for (size_t i = 0; i < n_marks; i++) {
        at[2 * i] = marks[i].begin;
        at[2 * i + 1] = marks[i].end;
        up[2 * i] = false;
        up[2 * i + 1] = true;
    }
    struct nf_map map = {.at = at, .n = 2 * n_marks, .round_up = up};
    bool rewritten = norm_run(&t->norm, s->p, s->n, out, &map, front);
    for (size_t i = 0; rewritten && i < n_marks; i++)
        marks[i] = (struct tok_mark){at[2 * i], at[2 * i + 1]};
    free(at);
    free(up);
    return rewritten;
}

/* marks_trim: takes out marks that have become empty; returns how many are left. */
static size_t marks_trim(struct tok_mark *marks, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (marks[i].begin < marks[i].end)
            marks[k++] = marks[i];
    return k;
}

/* normal_piece: a piece between raw added tokens: normalise, then search the normalised ones. */
static void normal_piece(const struct tok *t, const struct span *s, size_t at, struct tok_ids *out) {
    struct buf text = {0};
    struct tok_mark *own = NULL;
    size_t n_own = 0;
    if (s->n_marks && t->norm_added.n_tokens)
        own = marks_within(s->marks, s->n_marks, at, s->n, &n_own);
    struct span normal = *s;
    if (normalise(t, s, &text, own, n_own, &normal.n_front)) {
        normal.p = text.data;
        normal.n = text.len;
        n_own = marks_trim(own, n_own);
    }
    normal.marks = own;
    normal.n_marks = n_own;
    scan(t, &t->norm_added, &normal, encode_piece, out);
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
    struct span all = {text, n, 0, n_own > 0, own, n_own};
    if (n)
        (void)uni_decode(text, &all.n_front);
    for (size_t i = 0; i < t->single.n_parts; i++) {
        const struct tok_part *part = &t->single.parts[i];
        if (part->kind == TOK_PART_A && n)
            scan(t, &t->raw_added, &all, normal_piece, out);
        else if (part->kind == TOK_PART_ID && (flags & TOK_ADD_SPECIAL))
            tok_ids_push(out, part->id);
    }
    free(own);
    buf_fini(&repaired);
}

/* ---- what a tokenizer knows ---- */

void tok_n_special(const struct tok *t, size_t *n_front, size_t *n_back) {
    bool behind = false;
    *n_front = *n_back = 0;
    for (size_t i = 0; i < t->single.n_parts; i++) {
        bool text = t->single.parts[i].kind != TOK_PART_ID;
        behind |= text;
        if (!text)
            ++*(behind ? n_back : n_front);
    }
}

size_t tok_n_special_pair(const struct tok *t) {
    return t->pair.n_parts - 2;
}

static void apply(const struct tok_template *x, const struct tok_text_ids *a, const struct tok_text_ids *b,
                  struct tok_ids *out, struct tok_ids *types) {
    for (size_t i = 0; i < x->n_parts; i++) {
        const struct tok_part *part = &x->parts[i];
        const struct tok_text_ids *text = part->kind == TOK_PART_A ? a : b;
        size_t n = part->kind == TOK_PART_ID ? 1 : text->n;
        for (size_t k = 0; k < n; k++) {
            tok_ids_push(out, part->kind == TOK_PART_ID ? part->id : text->v[k]);
            if (types)
                tok_ids_push(types, part->type);
        }
    }
}

void tok_wrap(const struct tok *t, struct tok_text_ids a, struct tok_ids *out, struct tok_ids *types) {
    apply(&t->single, &a, NULL, out, types);
}

void tok_wrap_pair(const struct tok *t, struct tok_text_ids a, struct tok_text_ids b, struct tok_ids *out,
                   struct tok_ids *types) {
    apply(&t->pair, &a, &b, out, types);
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
