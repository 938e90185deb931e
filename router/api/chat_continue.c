#include "router/api/chat_continue.h"

#include <stdlib.h>

#include "common/utf8.h"
#include "router/tmpl/ucd.h"

/* with_word: the text with the word behind it. New reference; *content is the text inside it. */
static json_t *with_word(struct chat_continue *c, const json_t *text) {
    size_t n = json_string_length(text);
    struct buf b = {0};
    buf_add(&b, json_string_value(text), n);
    buf_add(&b, c->word, sizeof c->word);
    json_t *v = json_stringn_nocheck(b.data, b.len);
    CHECK(v);
    buf_fini(&b);
    c->content = (struct str){json_string_value(v), n};
    return v;
}

void chat_continue_mark(struct chat_continue *c, json_t *messages) {
    json_t *message = json_array_get(messages, json_array_size(messages) - 1), *part = NULL;
    json_t *content = json_object_get(message, "content"), *empty = json_string("");
    uint8_t random[CONTINUE_WORD_BYTES];
    fill_random(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        c->word[i] = (char)('0' + random[i] % 10);
    c->word[CONTINUE_WORD_BYTES] = ' ';
    if (!json_is_array(content)) {
        CHECK(json_object_set_new(message, "content", with_word(c, content ? content : empty)) == 0);
        json_decref(empty);
        return;
    }
    for (size_t i = json_array_size(content); i > 0 && !part; i--)
        if (json_object_get(json_array_get(content, i - 1), "text"))
            part = json_array_get(content, i - 1);
    if (!part) { /* nothing was said yet: as an empty text */
        CHECK((part = json_object()) && json_object_set_new(part, "type", json_string("text")) == 0 &&
              json_object_set(part, "text", empty) == 0 && json_array_append_new(content, part) == 0);
    }
    CHECK(json_object_set_new(part, "text", with_word(c, json_object_get(part, "text"))) == 0);
    json_decref(empty);
}

/* n_space_front, n_space_back: bytes of white space at an end, as Python's strip() sees it. */
static size_t n_space_front(struct str s) {
    size_t at = 0, len;
    for (int32_t cp; at < s.n; at += len)
        if ((cp = utf8_decode(s.p + at, s.n - at, &len)) < 0 || !tm_is_space((uint32_t)cp))
            break;
    return at;
}

static size_t n_space_back(struct str s) {
    size_t end = s.n, len;
    while (end > 0) {
        size_t at = end - 1;
        while (at > 0 && ((uint8_t)s.p[at] & 0xC0) == 0x80)
            at--;
        int32_t cp = utf8_decode(s.p + at, end - at, &len);
        if (cp < 0 || !tm_is_space((uint32_t)cp))
            break;
        end = at;
    }
    return s.n - end;
}

/* from_client: whether the byte at `at` came from client text. */
static bool from_client(const struct tmpl_out *o, size_t at) {
    size_t lo = 0, hi = o->n_marks; /* the first mark that ends behind it */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (o->marks[mid].end <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < o->n_marks && o->marks[lo].begin <= at;
}

/* Bytes of the rendering that go, in order, the last ones up to its end. */
struct gaps {
    struct tmpl_mark *v;
    size_t n, cap;
};

static void gap(struct gaps *g, size_t begin, size_t end) {
    if (g->n == g->cap) {
        g->cap = MAX(g->cap * 2, (size_t)4);
        g->v = xreallocarray(g->v, g->cap, sizeof *g->v);
    }
    g->v[g->n++] = (struct tmpl_mark){begin, end};
}

/* close_gaps: takes the bytes out of the text and moves its marks. */
static void close_gaps(struct tmpl_out *o, const struct gaps *g) {
    size_t n_gone = 0, next = 0, kept = 0;
    for (size_t i = 0; i < 2 * o->n_marks; i++) { /* the ends of marks are in order */
        size_t *at = i % 2 ? &o->marks[i / 2].end : &o->marks[i / 2].begin;
        for (; next < g->n && g->v[next].end <= *at; next++)
            n_gone += g->v[next].end - g->v[next].begin;
        *at -= n_gone + (next < g->n && g->v[next].begin < *at ? *at - g->v[next].begin : 0);
    }
    for (size_t i = 0; i < o->n_marks; i++)
        if (o->marks[i].begin < o->marks[i].end)
            o->marks[kept++] = o->marks[i];
    o->n_marks = kept;
    size_t len = 0, from = 0;
    for (size_t i = 0; i < g->n; i++) {
        memmove(o->text.data + len, o->text.data + from, g->v[i].begin - from);
        len += g->v[i].begin - from;
        from = g->v[i].end;
    }
    o->text.len = len; /* nothing stands behind the last one */
}

enum rc chat_continue_cut(const struct chat_continue *c, struct tmpl_out *out, struct err *e) {
    const char *p = out->text.data;
    size_t n = out->text.len, n_front = n_space_front(c->content), end = 0;
    struct str content = {c->content.p + n_front, c->content.n - n_front}; /* a template may strip in front */
    struct gaps gaps = {0};
    bool found = false, stripped = false;
    for (size_t at = 0; n - at >= CONTINUE_WORD_BYTES;) {
        const char *hit = memmem(p + at, n - at, c->word, CONTINUE_WORD_BYTES);
        if (!hit)
            break;
        at = (size_t)(hit - p);
        found = at - end >= content.n && !memcmp(hit - content.n, content.p, content.n);
        end = at + CONTINUE_WORD_BYTES;
        stripped = end == n || p[end] != ' ' || !from_client(out, end);
        gap(&gaps, at, stripped ? end : end + 1);
        at = end;
    }
    if (!found) {
        free(gaps.v);
        return err_set(e, RC_INVALID, "continue_final_message",
                       "continue_final_message: the chat template does not write the last message's content "
                       "as it is");
    }
    gaps.v[gaps.n - 1].begin -= stripped ? n_space_back(content) : 0;
    gaps.v[gaps.n - 1].end = n;
    close_gaps(out, &gaps);
    free(gaps.v);
    return RC_OK;
}
