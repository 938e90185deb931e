#include "common/text/pre.h"

#include "common/text/bytelevel.h"
#include "common/text/class_tab.h"
#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

void pre_fini(struct pre *pre) {
    for (size_t i = 0; i < pre->n_steps; i++) {
        free(pre->steps[i].text);
        pattern_free(pre->steps[i].pattern);
    }
    *pre = (struct pre){0};
}

/* A step at work. Recursion is as deep as there are steps. */
struct at_work {
    const struct pre *pre;
    const struct pre_sink *sink;
    size_t step;
    const char *p;
    size_t n;
    size_t n_front; /* of these bytes, all count as where the input begins */
};

static void run_step(const struct at_work *w);

/* piece: hands [begin, end) to the next step, or to the model. */
static inline void piece(const struct at_work *w, size_t begin, size_t end) {
    if (begin == end)
        return;
    if (LIKELY(w->step + 1 == w->pre->n_steps)) {
        w->sink->encode(w->sink->self, w->p + begin, end - begin, w->sink->out);
        return;
    }
    struct at_work next = *w;
    next.step++;
    next.p += begin;
    next.n = end - begin;
    next.n_front = begin < w->n_front ? w->n_front - begin : 0;
    run_step(&next);
}

static void run_split(const struct at_work *w, split_fn *split) {
    for (size_t at = 0; at < w->n;) {
        size_t end = split(w->p, at, w->n);
        piece(w, at, end);
        at = end;
    }
}

static void run_prefix_space(const struct at_work *w) {
    if (w->p[0] == ' ') {
        piece(w, 0, w->n);
        return;
    }
    char *spaced = xmalloc(w->n + 1);
    spaced[0] = ' ';
    memcpy(spaced + 1, w->p, w->n);
    struct at_work own = *w;
    own.p = spaced;
    own.n++;
    piece(&own, 0, own.n);
    free(spaced);
}

/* ---- Metaspace ---- */

static bool starts_with(const struct at_work *w, size_t at, const struct pre_step *s) {
    return w->n - at >= s->n_text && memcmp(w->p + at, s->text, s->n_text) == 0;
}

/* cut_before: pieces that start at each occurrence of the step's text. */
static void cut_before(const struct at_work *w, const struct pre_step *s) {
    size_t begin = 0;
    for (size_t at = 1; at < w->n;) {
        const char *hit = memchr(w->p + at, s->text[0], w->n - at);
        if (!hit)
            break;
        at = (size_t)(hit - w->p);
        if (starts_with(w, at, s)) {
            piece(w, begin, at);
            begin = at;
        }
        at++;
    }
    piece(w, begin, w->n);
}

static void run_meta(const struct at_work *w, const struct pre_step *s) {
    struct buf b = {0};
    bool has = w->p[0] == ' ' || starts_with(w, 0, s);
    if (!has && (s->scheme == PRE_ALWAYS || (s->scheme == PRE_FIRST && w->n_front)))
        buf_add(&b, s->text, s->n_text);
    for (size_t at = 0; at < w->n;) {
        const char *hit = memchr(w->p + at, ' ', w->n - at);
        size_t end = hit ? (size_t)(hit - w->p) : w->n;
        buf_add(&b, w->p + at, end - at);
        if (hit)
            buf_add(&b, s->text, s->n_text);
        at = end + (hit != NULL);
    }
    struct at_work own = *w;
    own.p = b.data;
    own.n = b.len;
    if (s->cut)
        cut_before(&own, s);
    else
        piece(&own, 0, own.n);
    buf_fini(&b);
}

/* ---- words ---- */

enum { WORD, SPACE, PUNCT };

/* bert_class: of the character at p[at]; its length goes to *len. */
static inline int bert_class(const char *p, size_t at, size_t *len) {
    uint32_t cp = uni_decode(p + at, len);
    return uni_is_space(cp) ? SPACE : uni_props(cp) & UNI_IS_PUNCT ? PUNCT : WORD;
}

static void run_bert(const struct at_work *w) {
    size_t begin = 0, len;
    for (size_t at = 0; at < w->n; at += len) {
        int c = bert_class(w->p, at, &len);
        if (c == WORD)
            continue;
        piece(w, begin, at);
        begin = at + len;
        if (c == PUNCT)
            piece(w, at, begin);
    }
    piece(w, begin, w->n);
}

static int word_class(const char *p, size_t at, size_t *len) {
    unsigned flags = uni_flags(uni_decode(p + at, len));
    return flags & UNI_WORD ? WORD : (flags & UNI_KIND_MASK) == UNI_SPACE ? SPACE : PUNCT;
}

static void run_words(const struct at_work *w) {
    for (size_t at = 0, len; at < w->n;) {
        int c = word_class(w->p, at, &len);
        size_t end = at + len;
        while (end < w->n && word_class(w->p, end, &len) == c)
            end += len;
        if (c != SPACE)
            piece(w, at, end);
        at = end;
    }
}

static void run_fixed(const struct at_work *w, size_t n_chars) {
    size_t begin = 0, len, n = 0;
    for (size_t at = 0; at < w->n; at += len) {
        (void)uni_decode(w->p + at, &len);
        if (n++ == n_chars) {
            piece(w, begin, at);
            begin = at;
            n = 1;
        }
    }
    piece(w, begin, w->n);
}

/* script_of: 0 for what stands in any script. */
static unsigned script_of(uint32_t cp) {
    uint32_t low = 0, high = CLASS_N_CUT_RUNS; /* class_cut_runs[low] starts at or before cp */
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (class_cut_runs[mid] >> 8 <= cp)
            low = mid;
        else
            high = mid;
    }
    return class_cut_runs[low] & 0xFF;
}

/* run_scripts: as Hugging Face has it, what stands before the first character with a script goes. */
static void run_scripts(const struct at_work *w) {
    size_t begin = w->n, len;
    unsigned last = 0;
    for (size_t at = 0; at < w->n; at += len) {
        unsigned script = script_of(uni_decode(w->p + at, &len));
        if (!script || script == last)
            continue;
        if (last)
            piece(w, begin, at);
        begin = at;
        last = script;
    }
    piece(w, begin, w->n);
}

static void run_bytes(const struct at_work *w) {
    struct buf b = {0};
    size_t front = 0;
    for (size_t i = 0; i < w->n; i++) {
        char letter[4];
        buf_add(&b, letter, utf8_encode(byte_level_of((uint8_t)w->p[i]), letter));
        if (i + 1 == w->n_front)
            front = b.len;
    }
    struct at_work own = *w;
    own.p = b.data;
    own.n = b.len;
    own.n_front = front;
    piece(&own, 0, own.n);
    buf_fini(&b);
}

/* ---- matches ---- */

static bool is_match(const struct pre_step *s, uint32_t cp) {
    switch (s->match) {
    case PRE_MATCH_SPACE:
        return uni_is_space(cp);
    case PRE_MATCH_PUNCT:
        return uni_props(cp) & UNI_IS_PUNCT;
    case PRE_MATCH_NUMERIC:
        return uni_props(cp) & UNI_IS_NUMERIC;
    case PRE_MATCH_TEXT:
    case PRE_MATCH_PATTERN:
        break;
    }
    return false;
}

/* next_match: the first match at or behind at; [n, n) if there is none. */
static void next_match(const struct at_work *w, const struct pre_step *s, size_t at, size_t *begin,
                       size_t *end) {
    *begin = *end = w->n;
    if (s->match == PRE_MATCH_TEXT) {
        const char *hit = memmem(w->p + at, w->n - at, s->text, s->n_text);
        if (hit) {
            *begin = (size_t)(hit - w->p);
            *end = *begin + s->n_text;
        }
        return;
    }
    for (size_t len; at < w->n; at += len)
        if (is_match(s, uni_decode(w->p + at, &len))) {
            *begin = at;
            *end = at + len;
            return;
        }
}

/* A piece that may still grow. */
struct growing {
    size_t begin, end;
    bool matched; /* its last part is a match */
    bool any;
};

/* part: [begin, end) matches or does not; joins it to the piece before it or begins another. An empty match
 * parts what is around it. */
static void part(const struct at_work *w, const struct pre_step *s, struct growing *g, size_t begin,
                 size_t end, bool matched) {
    bool joins = false;
    switch (s->behavior) {
    case PRE_REMOVED:
        if (!matched)
            piece(w, begin, end);
        return;
    case PRE_ISOLATED:
        piece(w, begin, end);
        return;
    case PRE_MERGED_WITH_PREVIOUS:
        joins = matched && !g->matched;
        break;
    case PRE_MERGED_WITH_NEXT:
        joins = !matched && g->matched;
        break;
    case PRE_CONTIGUOUS:
        joins = matched == g->matched;
        break;
    }
    if (g->any && !joins)
        piece(w, g->begin, g->end);
    if (!g->any || !joins)
        g->begin = begin;
    *g = (struct growing){g->begin, end, matched, true};
}

static void run_pattern(const struct at_work *w, const struct pre_step *s) {
    struct growing g = {0};
    struct pattern_scan scan;
    size_t at = 0, begin, end;
    pattern_scan_init(&scan, s->pattern, w->p, w->n);
    while (pattern_next(&scan, &begin, &end)) {
        if (at < begin)
            part(w, s, &g, at, begin, s->invert);
        part(w, s, &g, begin, end, !s->invert);
        at = end;
    }
    if (at < w->n)
        part(w, s, &g, at, w->n, s->invert);
    pattern_scan_fini(&scan);
    if (g.any)
        piece(w, g.begin, g.end);
}

static void run_match(const struct at_work *w, const struct pre_step *s) {
    struct growing g = {0};
    if (s->match == PRE_MATCH_PATTERN) {
        run_pattern(w, s);
        return;
    }
    for (size_t at = 0, begin, end; at < w->n; at = end) {
        next_match(w, s, at, &begin, &end);
        if (at < begin)
            part(w, s, &g, at, begin, s->invert);
        if (begin < end)
            part(w, s, &g, begin, end, !s->invert);
    }
    if (g.any)
        piece(w, g.begin, g.end);
}

static void run_step(const struct at_work *w) {
    const struct pre_step *s = &w->pre->steps[w->step];
    switch (s->kind) {
    case PRE_SPLIT:
        run_split(w, s->split);
        return;
    case PRE_PREFIX_SPACE:
        run_prefix_space(w);
        return;
    case PRE_META:
        run_meta(w, s);
        return;
    case PRE_BERT:
        run_bert(w);
        return;
    case PRE_WORDS:
        run_words(w);
        return;
    case PRE_MATCH:
        run_match(w, s);
        return;
    case PRE_FIXED:
        run_fixed(w, s->n_fixed);
        return;
    case PRE_SCRIPTS:
        run_scripts(w);
        return;
    case PRE_BYTES:
        run_bytes(w);
        return;
    }
}

void pre_run(const struct pre *pre, const char *p, size_t n, size_t n_front, const struct pre_sink *sink) {
    if (pre->n_steps == 0) {
        sink->encode(sink->self, p, n, sink->out);
        return;
    }
    run_step(&(struct at_work){pre, sink, 0, p, n, n_front});
}
