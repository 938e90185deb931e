/* text.c: string operations that methods and filters share: case, strip, replace, lines, padding, join. */
#include "common/utf8.h"
#include "router/tmpl/ucd.h"
#include "router/tmpl/val.h"

/* ---- case ---- */

static void put_cp(struct tm_run *r, uint32_t cp, bool client) {
    char out[4];
    tm_put_from(r, out, utf8_encode(cp, out), client);
}

static void put_mapped(struct tm_run *r, uint32_t cp, int32_t delta, bool client) {
    if (delta < UCD_SPECIAL) {
        put_cp(r, (uint32_t)((int32_t)cp + delta), client);
        return;
    }
    const uint32_t *to = tm_ucd_special[delta - UCD_SPECIAL];
    for (int i = 0; i < 3 && to[i]; i++)
        put_cp(r, to[i], client);
}

static size_t cp_before(const struct tm_str *s, size_t at) {
    do
        at--;
    while (at > 0 && ((unsigned char)s->p[at] & 0xc0) == 0x80);
    return at;
}

/* Whether the capital sigma at [at, next) ends a word: a cased letter before it, none behind. Looks at
 * most this far for one, so that a text of nothing but sigmas and dots stays cheap. */
enum { SIGMA_LOOK_MAX = 64 };
static bool final_sigma(const struct tm_str *s, size_t from, size_t at, size_t next) {
    bool before = false;
    unsigned len;
    for (int i = 0; i < SIGMA_LOOK_MAX && at > from; i++) {
        at = cp_before(s, at);
        uint32_t f = tm_ucd(tm_utf8_get(s->p + at, s->p + s->n, &len))->flags;
        if (f & UCD_IGNORABLE)
            continue;
        before = f & UCD_CASED;
        break;
    }
    for (int i = 0; before && i < SIGMA_LOOK_MAX && next < s->n; i++) {
        uint32_t f = tm_ucd(tm_utf8_get(s->p + next, s->p + s->n, &len))->flags;
        next += len;
        if (f & UCD_IGNORABLE)
            continue;
        return !(f & UCD_CASED);
    }
    return before;
}

static void put_lower(struct tm_run *r, const struct tm_str *s, size_t from, size_t at, uint32_t cp,
                      unsigned len, bool client) {
    if (cp == 0x3a3)
        put_cp(r, final_sigma(s, from, at, at + len) ? 0x3c2 : 0x3c3, client);
    else
        put_mapped(r, cp, tm_ucd(cp)->lower, client);
}

static bool starts_word(uint32_t cp) { /* of the title filter */
    return cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<' || tm_is_space(cp);
}

/* ASCII keeps its length, so marks stay where they are. */
static struct tm_val case_ascii(struct tm_run *r, const struct tm_str *s, int how) {
    char *p = tm_alloc(r, s->n);
    bool in_word = false;
    for (size_t i = 0; i < s->n; i++) {
        char ch = s->p[i];
        bool lower = ch >= 'a' && ch <= 'z', upper = ch >= 'A' && ch <= 'Z', up;
        switch (how) {
        case CASE_UPPER:
            up = true;
            break;
        case CASE_LOWER:
            up = false;
            break;
        case CASE_SWAP:
            up = lower;
            break;
        case CASE_CAPITALIZE:
            up = i == 0;
            break;
        default:
            up = !in_word;
            in_word = how == CASE_TITLE ? lower || upper : !starts_word((unsigned char)ch);
        }
        p[i] = up && lower ? (char)(ch - 32) : !up && upper ? (char)(ch + 32) : ch;
    }
    struct tm_str *out = tm_alloc(r, sizeof *out);
    *out = *s;
    out->p = p;
    out->hash = 0;
    out->tail = NULL;
    return tm_of_str(out);
}

struct tm_val tm_str_case(struct tm_run *r, const struct tm_str *s, int how) {
    struct tm_str *counted = tm_alloc(r, sizeof *counted);
    *counted = *s;
    tm_step_bytes(r, s->n * 4);
    if ((size_t)tm_str_len(r, counted) == s->n)
        return case_ascii(r, counted, how);
    struct tm_cap outer = tm_cap_begin(r);
    bool in_word = false;
    size_t word = 0; /* the title filter lowers each word by itself */
    tm_step(r, (uint64_t)counted->n_cp);
    for (size_t at = 0; at < s->n;) {
        bool client;
        struct str run = tm_run_next(s, &at, &client);
        const char *end = run.p + run.n;
        unsigned len;
        for (const char *p = run.p; p < end; p += len) {
            uint32_t cp = tm_utf8_get(p, end, &len);
            const struct tm_ucd *u = tm_ucd(cp);
            size_t here = (size_t)(p - s->p);
            bool up = how == CASE_UPPER || (how == CASE_SWAP && u->flags & UCD_LOWER);
            if (how == CASE_SWAP && !(u->flags & (UCD_LOWER | UCD_UPPER))) {
                put_cp(r, cp, client);
            } else if (up || (how == CASE_TITLE_FILTER && !in_word)) {
                put_mapped(r, cp, u->upper, client);
                word = here + len;
            } else if ((how == CASE_CAPITALIZE && here == 0) || (how == CASE_TITLE && !in_word)) {
                put_mapped(r, cp, u->title, client);
            } else {
                put_lower(r, s, how == CASE_TITLE_FILTER ? word : 0, here, cp, len, client);
            }
            in_word = how == CASE_TITLE ? (u->flags & UCD_CASED) != 0 : !starts_word(cp);
        }
    }
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

/* ---- strip ---- */

static bool in_set(const struct tm_str *s, size_t at, size_t len, const struct tm_str *set) {
    if (set)
        return set->n && memmem(set->p, set->n, s->p + at, len) != NULL;
    unsigned n;
    return tm_is_space(tm_utf8_get(s->p + at, s->p + s->n, &n));
}

struct tm_val tm_str_strip(struct tm_run *r, const struct tm_str *s, struct tm_val chars, bool left,
                           bool right) {
    const struct tm_str *set = NULL;
    if (chars.kind != V_MISSING && chars.kind != V_NONE)
        set = tm_need_str(r, chars, "strip argument");
    uint64_t cost = set ? set->n / 32 : 0;
    size_t begin = 0, end = s->n;
    while (left && begin < end) {
        size_t next = begin + 1;
        while (next < end && ((unsigned char)s->p[next] & 0xc0) == 0x80)
            next++;
        tm_step(r, cost);
        if (!in_set(s, begin, next - begin, set))
            break;
        begin = next;
    }
    while (right && end > begin) {
        size_t at = cp_before(s, end);
        tm_step(r, cost);
        if (!in_set(s, at, end - at, set))
            break;
        end = at;
    }
    tm_step_bytes(r, s->n - (end - begin));
    if (begin == 0 && end == s->n)
        return tm_of_str((struct tm_str *)(uintptr_t)s); /* strings are never written to */
    return tm_str_sub(r, s, begin, end);
}

/* ---- replace ---- */

struct tm_val tm_str_replace(struct tm_run *r, const struct tm_str *s, const struct tm_str *old,
                             const struct tm_str *new_, int64_t count) {
    struct tm_cap outer = tm_cap_begin(r);
    size_t at = 0;
    uint64_t left = count < 0 ? UINT64_MAX : (uint64_t)count;
    tm_step_bytes(r, s->n * 2);
    while (left > 0 && at <= s->n) {
        size_t hit;
        if (old->n == 0) {
            hit = at;
        } else {
            const char *p = s->n - at >= old->n ? memmem(s->p + at, s->n - at, old->p, old->n) : NULL;
            if (!p)
                break;
            hit = (size_t)(p - s->p);
        }
        tm_step(r, 1);
        left--;
        tm_put_sub(r, s, at, hit);
        tm_put_str(r, new_);
        at = hit + old->n;
        if (old->n == 0) { /* before every character, and at the end */
            size_t next = at + 1;
            while (next < s->n && ((unsigned char)s->p[next] & 0xc0) == 0x80)
                next++;
            tm_put_sub(r, s, at, MIN(next, s->n));
            at = next;
        }
    }
    if (at < s->n)
        tm_put_sub(r, s, at, s->n);
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

/* ---- lines ---- */

/* The length of the line break at p, or 0. */
static unsigned line_break(const char *p, const char *end) {
    unsigned char ch = (unsigned char)*p;
    if (ch == '\r')
        return end - p > 1 && p[1] == '\n' ? 2 : 1;
    if ((ch >= '\n' && ch <= '\f') || (ch >= 0x1c && ch <= 0x1e))
        return 1;
    if (ch < 0x80)
        return 0;
    unsigned len;
    uint32_t cp = tm_utf8_get(p, end, &len);
    return cp == 0x85 || cp == 0x2028 || cp == 0x2029 ? len : 0;
}

struct tm_val tm_str_lines(struct tm_run *r, struct tm_str *s, bool keepends) {
    struct tm_vec out = {0};
    size_t begin = 0, at = 0;
    tm_step_bytes(r, s->n * 2);
    while (at < s->n) {
        unsigned len = line_break(s->p + at, s->p + s->n);
        if (!len) {
            do
                at++;
            while (at < s->n && ((unsigned char)s->p[at] & 0xc0) == 0x80);
            continue;
        }
        tm_vec_add(r, &out, tm_str_sub(r, s, begin, keepends ? at + len : at));
        tm_step(r, 1);
        begin = at = at + len;
    }
    if (begin < s->n)
        tm_vec_add(r, &out, tm_str_sub(r, s, begin, s->n));
    return tm_vec_list(r, &out, V_LIST);
}

/* ---- padding and joining ---- */

struct tm_val tm_str_pad(struct tm_run *r, struct tm_str *s, int64_t width, const struct tm_str *fill,
                         char align) {
    static const struct tm_str space = {.p = " ", .n = 1, .n_cp = 1};
    int64_t pad = width > INT32_MAX ? INT32_MAX : width;
    pad -= tm_str_len(r, s);
    if (pad <= 0)
        return tm_of_str(s);
    int64_t left = align == '<' ? 0 : align == '>' ? pad : pad / 2 + (pad & width & 1);
    fill = fill ? fill : &space;
    struct tm_cap outer = tm_cap_begin(r);
    tm_put_fill(r, fill, left);
    tm_put_str(r, s);
    tm_put_fill(r, fill, pad - left);
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

struct tm_val tm_join(struct tm_run *r, const struct tm_str *sep, struct tm_val seq, struct tm_val attr,
                      bool convert) {
    struct tm_iter *it = tm_iter_open(r, seq);
    struct tm_cap outer = tm_cap_begin(r);
    struct tm_val v;
    for (bool first = true; tm_iter_next(r, it, &v); first = false) {
        if (!first)
            tm_put_str(r, sep);
        if (attr.kind != V_MISSING)
            v = tm_attr_path(r, v, attr, TM_MISSING);
        if (!convert)
            tm_need_str(r, v, "an item of join()");
        tm_put_val(r, v);
    }
    return tm_cap_end(r, outer);
}
