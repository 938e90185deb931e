#include "common/text/norm.h"

#include "common/text/bytelevel.h"
#include "common/text/uni.h"
#include "common/utf8.h"

#include <stdlib.h>

void norm_fini(struct norm *m) {
    for (size_t i = 0; i < m->n_steps; i++) {
        free(m->steps[i].pattern);
        free(m->steps[i].content);
        charsmap_fini(&m->steps[i].map);
        pattern_free(m->steps[i].compiled);
    }
    free(m->steps);
    *m = (struct norm){0};
}

/* A pass of one step over a text. */
struct pass {
    const struct norm_step *step;
    const char *p;
    size_t n;
    struct buf *out;
    struct nf_map *map; /* or NULL */
    size_t front;       /* source bytes that are of the first character */
    size_t out_front;   /* what became of them */
};

static void put_cp(struct buf *out, uint32_t cp) {
    char *at = buf_reserve(out, 4);
    out->len += utf8_encode(cp, at);
}

/* keep: source [begin, end) goes over as it is. */
static void keep(struct pass *x, size_t begin, size_t end) {
    nf_map_same(x->map, begin, end, x->out->len);
    if (begin < x->front)
        x->out_front += MIN(end, x->front) - begin;
    buf_add(x->out, x->p + begin, end - begin);
}

/* drop: source [begin, end) goes away. */
static void drop(struct pass *x, size_t begin, size_t end) {
    nf_map_changed(x->map, begin, end, x->out->len, x->out->len);
}

/* made: the character [begin, end) became what is in out from before on. */
static void made(struct pass *x, size_t begin, size_t end, size_t before) {
    nf_map_changed(x->map, begin, end, before, x->out->len);
    if (begin < x->front)
        x->out_front += x->out->len - before;
}

/* ---- a character at a time ---- */

static void pass_lower(struct pass *x) {
    for (size_t i = 0, len; i < x->n;) {
        size_t begin = i, before = x->out->len;
        char *at = buf_reserve(x->out, x->n - i);
        for (; i < x->n && (uint8_t)x->p[i] < 0x80; i++)
            *at++ = (char)(x->p[i] >= 'A' && x->p[i] <= 'Z' ? x->p[i] + 32 : x->p[i]);
        nf_map_same(x->map, begin, i, before);
        x->out->len += i - begin;
        if (begin < x->front)
            x->out_front += MIN(i, x->front) - begin;
        for (; i < x->n && (uint8_t)x->p[i] >= 0x80; i += len) {
            uint32_t to[2];
            before = x->out->len;
            size_t n_to = uni_lower_of(uni_decode(x->p + i, &len), to);
            for (size_t k = 0; k < n_to; k++)
                put_cp(x->out, to[k]);
            made(x, i, i + len, before);
        }
    }
}

static bool nmt_drops(uint32_t cp) {
    return (cp >= 0x01 && cp <= 0x08) || cp == 0x0B || (cp >= 0x0E && cp <= 0x1F) || cp == 0x7F ||
           cp == 0x8F || cp == 0x9F;
}

static bool nmt_space(uint32_t cp) {
    return cp == '\t' || cp == '\n' || cp == '\f' || cp == '\r' || cp == 0x1680 ||
           (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF ||
           cp == UNI_REPLACEMENT;
}

/* pass_filter: NMT and StripAccents. What stays goes over in stretches. */
static void pass_filter(struct pass *x) {
    bool nmt = x->step->kind == NORM_NMT;
    size_t done = 0;
    for (size_t i = 0, len = 1; i < x->n; i += len) {
        len = 1;
        if ((uint8_t)x->p[i] >= ' ' && (uint8_t)x->p[i] < 0x7F)
            continue; /* neither changes it */
        uint32_t cp = uni_decode(x->p + i, &len);
        bool gone = nmt ? nmt_drops(cp) : (uni_props(cp) & UNI_IS_MARK) != 0;
        if (!gone && !(nmt && nmt_space(cp)))
            continue;
        keep(x, done, i);
        done = i + len;
        if (gone) {
            drop(x, i, done);
        } else {
            buf_addc(x->out, ' ');
            made(x, i, done, x->out->len - 1);
        }
    }
    keep(x, done, x->n);
}

static void pass_bytes(struct pass *x) {
    for (size_t i = 0, len; i < x->n; i += len) {
        size_t before = x->out->len;
        (void)uni_decode(x->p + i, &len);
        for (size_t k = 0; k < len; k++)
            put_cp(x->out, byte_level_of((uint8_t)x->p[i + k]));
        made(x, i, i + len, before);
    }
}

/* ---- the text as a whole ---- */

static void pass_strip(struct pass *x) {
    size_t begin = 0, end = x->n, len;
    while (x->step->left && begin < end && uni_is_space(uni_decode(x->p + begin, &len)))
        begin += len;
    while (x->step->right && begin < end && uni_is_space(uni_decode(x->p + uni_prev(x->p, end), &len)))
        end = uni_prev(x->p, end);
    drop(x, 0, begin);
    keep(x, begin, end);
    drop(x, end, x->n);
}

static void pass_prepend(struct pass *x) {
    buf_add(x->out, x->step->content, x->step->n_content);
    if (x->front)
        x->out_front += x->step->n_content;
    keep(x, 0, x->n);
}

/* replace: source [begin, end) becomes the content, which counts as made of the last character. */
static void replace(struct pass *x, size_t begin, size_t end) {
    size_t before = x->out->len;
    buf_add(x->out, x->step->content, x->step->n_content);
    nf_map_changed(x->map, begin, end, before, x->out->len);
    if (begin < x->front && (begin == end || uni_prev(x->p, end) < x->front))
        x->out_front += x->step->n_content;
}

static void pass_replace(struct pass *x) {
    const struct norm_step *s = x->step;
    size_t done = 0;
    while (done < x->n) {
        const char *hit = memmem(x->p + done, x->n - done, s->pattern, s->n_pattern);
        size_t at = hit ? (size_t)(hit - x->p) : x->n;
        keep(x, done, at);
        if (!hit)
            break;
        replace(x, at, at + s->n_pattern);
        done = at + s->n_pattern;
    }
}

static void pass_replace_pattern(struct pass *x) {
    struct pattern_scan scan;
    size_t done = 0, begin, end;
    pattern_scan_init(&scan, x->step->compiled, x->p, x->n);
    while (pattern_next(&scan, &begin, &end)) {
        keep(x, done, begin);
        replace(x, begin, end);
        done = end;
    }
    pattern_scan_fini(&scan);
    keep(x, done, x->n);
}

/* run_char: whether the character at i is of the run's kind; its length goes to *len. */
static bool run_char(const struct pass *x, size_t i, size_t *len) {
    const struct norm_step *s = x->step;
    if (s->n_pattern == 1) { /* ASCII, so that any byte may be looked at */
        *len = 1;
        return x->p[i] == s->pattern[0];
    }
    uint32_t cp = uni_decode(x->p + i, len);
    if (s->n_pattern == 0)
        return uni_is_space(cp);
    return *len == s->n_pattern && memcmp(x->p + i, s->pattern, s->n_pattern) == 0;
}

static void pass_replace_run(struct pass *x) {
    const struct norm_step *s = x->step;
    size_t done = 0;
    for (size_t i = 0, len = 0; i < x->n;) {
        if (s->n_pattern) { /* to where one may start */
            const char *hit = memchr(x->p + i, s->pattern[0], x->n - i);
            i = hit ? (size_t)(hit - x->p) : x->n;
        }
        size_t begin = i, n_chars = 0;
        for (; i < x->n && run_char(x, i, &len); n_chars++)
            i += len;
        if (n_chars >= s->run_min) {
            keep(x, done, begin);
            replace(x, begin, i);
            done = i;
        }
        i += i < x->n ? len : 0; /* no character of the kind */
    }
    keep(x, done, x->n);
}

/* ---- BERT ---- */

static bool is_chinese(uint32_t cp) {
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
           (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B73F) ||
           (cp >= 0x2B740 && cp <= 0x2B81F) || (cp >= 0x2B920 && cp <= 0x2CEAF) ||
           (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x2F800 && cp <= 0x2FA1F);
}

void norm_bert_init(struct norm_step *s) {
    for (uint32_t c = 0; c < 128; c++) {
        uint8_t to = (uint8_t)(s->lower && c >= 'A' && c <= 'Z' ? c + 32 : c);
        if (s->clean_text && (uni_props(c) & UNI_IS_DROPPED))
            to = 0;
        else if (s->clean_text && uni_is_space(c))
            to = ' ';
        s->ascii[c] = to;
    }
}

static void bert_push(const struct norm_step *s, uint32_t cp, struct nf_stretch *v) {
    if (s->clean_text && (uni_props(cp) & UNI_IS_DROPPED))
        return;
    if (s->clean_text && uni_is_space(cp))
        cp = ' ';
    bool apart = s->chinese && is_chinese(cp);
    if (apart)
        nf_push(v, ' ');
    if (s->accents)
        nf_push_decomposed(v, cp, false);
    else
        nf_push(v, cp);
    if (apart)
        nf_push(v, ' ');
}

static void bert_flush(const struct norm_step *s, struct nf_stretch *v, struct buf *out) {
    if (s->accents)
        nf_order(v);
    for (size_t i = 0; i < v->n; i++) {
        uint32_t to[2] = {v->v[i]};
        if (s->accents && (uni_props(to[0]) & UNI_IS_ACCENT))
            continue;
        for (size_t k = 0, n_to = s->lower ? uni_lower_of(to[0], to) : 1; k < n_to; k++)
            put_cp(out, to[k]);
    }
    v->n = 0;
}

/* bert_stretch: appends what [begin, end) becomes, a run without ASCII that stays as it is. */
static void bert_stretch(const struct pass *x, size_t begin, size_t end, struct nf_stretch *v,
                         struct buf *out) {
    for (size_t i = begin, len; i < end; i += len)
        bert_push(x->step, uni_decode(x->p + i, &len), v);
    bert_flush(x->step, v, out);
}

/* pass_bert: ASCII that stays goes through a table; between such, characters are decomposed together,
 * those that clean_text takes from among them as well. */
static void pass_bert(struct pass *x) {
    const struct norm_step *s = x->step;
    struct nf_stretch v = {0};
    for (size_t i = 0; i < x->n;) {
        size_t begin = i, before = x->out->len, len;
        char *to = buf_reserve(x->out, x->n - i);
        for (; i < x->n && (uint8_t)x->p[i] < 0x80 && s->ascii[(uint8_t)x->p[i]]; i++)
            *to++ = (char)s->ascii[(uint8_t)x->p[i]];
        nf_map_same(x->map, begin, i, before);
        x->out->len += i - begin;
        if (begin < x->front)
            x->out_front += MIN(i, x->front) - begin;
        if (i == x->n)
            break;
        begin = i;
        before = x->out->len;
        while (i < x->n && ((uint8_t)x->p[i] >= 0x80 || !s->ascii[(uint8_t)x->p[i]])) {
            (void)uni_decode(x->p + i, &len);
            i += len;
        }
        bert_stretch(x, begin, i, &v, x->out);
        nf_map_changed(x->map, begin, i, before, x->out->len);
        if (begin < x->front) {
            struct buf own = {0};
            bert_stretch(x, begin, MIN(i, x->front), &v, &own);
            x->out_front += own.len;
            buf_fini(&own);
        }
    }
    nf_stretch_fini(&v);
}

/* ---- steps ---- */

/* pass_form, pass_charsmap: what the first characters become by themselves tells how many there are. */
static void pass_form(struct pass *x) {
    struct buf own = {0};
    nf(x->step->form, x->p, x->n, x->out, x->map);
    if (x->front)
        nf(x->step->form, x->p, x->front, &own, NULL);
    x->out_front = own.len;
    buf_fini(&own);
}

static void pass_charsmap(struct pass *x) {
    charsmap_apply(&x->step->map, x->p, x->n, x->out, x->map);
    x->out_front = x->front ? charsmap_front(&x->step->map, x->p, x->n, x->front) : 0;
    if (x->front && !x->out_front && x->out->len) /* Hugging Face's offsets are off by what went away */
        (void)uni_decode(x->out->data, &x->out_front);
}

static void run_step(struct pass *x) {
    switch (x->step->kind) {
    case NORM_FORM:
        pass_form(x);
        return; /* has ended the map */
    case NORM_CHARSMAP:
        pass_charsmap(x);
        return;
    case NORM_LOWER:
        pass_lower(x);
        break;
    case NORM_STRIP:
        pass_strip(x);
        break;
    case NORM_STRIP_ACCENTS:
    case NORM_NMT:
        pass_filter(x);
        break;
    case NORM_REPLACE:
        pass_replace(x);
        break;
    case NORM_REPLACE_RUN:
        pass_replace_run(x);
        break;
    case NORM_REPLACE_PATTERN:
        pass_replace_pattern(x);
        break;
    case NORM_PREPEND:
        pass_prepend(x);
        break;
    case NORM_BYTES:
        pass_bytes(x);
        break;
    case NORM_BERT:
        pass_bert(x);
        break;
    }
    nf_map_end(x->map, x->n, x->out->len);
}

bool norm_run(const struct norm *m, const char *p, size_t n, struct buf *out, struct nf_map *map,
              size_t *front) {
    struct buf other = {0};
    bool rewritten = false;
    for (size_t i = 0; i < m->n_steps && n > 0; i++) {
        const struct norm_step *s = &m->steps[i];
        if (s->kind == NORM_FORM && nf_unchanged_n(s->form, p, n) == n)
            continue;
        struct pass x = {.step = s, .p = p, .n = n, .out = &other, .map = map, .front = front ? *front : 0};
        other.len = 0;
        if (map)
            map->next = 0;
        run_step(&x);
        if (front)
            *front = x.out_front;
        struct buf swap = *out;
        *out = other;
        other = swap;
        p = out->data;
        n = out->len;
        rewritten = true;
    }
    buf_fini(&other);
    return rewritten;
}
