/* methods_str.c: the methods of strings. */
#include "router/tmpl/ucd.h"
#include "router/tmpl/val.h"

#define METHOD(name)                                                                                         \
    static struct tm_val name(struct tm_run *r, struct tm_val self, UNUSED const struct tm_val *p,           \
                              UNUSED const struct tm_args *args)

static bool given(struct tm_val v) {
    return v.kind != V_MISSING && v.kind != V_NONE;
}

/* A piece of text that stands in for markup's own is escaped first. */
static struct tm_str *need_like(struct tm_run *r, const struct tm_str *self, struct tm_val v,
                                const char *what) {
    return self->markup ? tm_escape(r, v).s : tm_need_str(r, v, what);
}

METHOD(m_upper) {
    return tm_str_case(r, self.s, CASE_UPPER);
}
METHOD(m_lower) {
    return tm_str_case(r, self.s, CASE_LOWER);
}
METHOD(m_title) {
    return tm_str_case(r, self.s, CASE_TITLE);
}
METHOD(m_capitalize) {
    return tm_str_case(r, self.s, CASE_CAPITALIZE);
}
METHOD(m_swapcase) {
    return tm_str_case(r, self.s, CASE_SWAP);
}
METHOD(m_strip) {
    return tm_str_strip(r, self.s, p[0], true, true);
}
METHOD(m_lstrip) {
    return tm_str_strip(r, self.s, p[0], true, false);
}
METHOD(m_rstrip) {
    return tm_str_strip(r, self.s, p[0], false, true);
}

METHOD(m_replace) {
    int64_t count = given(p[2]) ? tm_need_int(r, p[2], "replace count") : -1;
    return tm_str_replace(r, self.s, tm_need_str(r, p[0], "replace argument"),
                          need_like(r, self.s, p[1], "replace argument"), count);
}

METHOD(m_removeprefix) {
    struct tm_str *s = tm_need_str(r, p[0], "removeprefix argument");
    bool has = self.s->n >= s->n && memcmp(self.s->p, s->p, s->n) == 0;
    return has ? tm_str_sub(r, self.s, s->n, self.s->n) : self;
}

METHOD(m_removesuffix) {
    struct tm_str *s = tm_need_str(r, p[0], "removesuffix argument");
    bool has = s->n && self.s->n >= s->n && memcmp(self.s->p + self.s->n - s->n, s->p, s->n) == 0;
    return has ? tm_str_sub(r, self.s, 0, self.s->n - s->n) : self;
}

/* ---- searching ---- */

/* The last occurrence of s in [begin, end) of in, or SIZE_MAX. Every comparison is paid for. */
static size_t rsearch(struct tm_run *r, const struct tm_str *in, size_t begin, size_t end,
                      const struct tm_str *s) {
    if (end - begin < s->n)
        return SIZE_MAX;
    for (size_t at = end - s->n + 1; at-- > begin;) {
        tm_step(r, (at & 31) == 0);
        if (s->n == 0 || (in->p[at] == s->p[0] && in->p[at + s->n - 1] == s->p[s->n - 1])) {
            tm_step_bytes(r, s->n);
            if (s->n == 0 || memcmp(in->p + at, s->p, s->n) == 0)
                return at;
        }
    }
    return SIZE_MAX;
}

static size_t search(struct tm_run *r, const struct tm_str *in, size_t begin, size_t end,
                     const struct tm_str *s) {
    if (end - begin < s->n)
        return SIZE_MAX;
    if (s->n == 0)
        return begin;
    const char *at = memmem(in->p + begin, end - begin, s->p, s->n);
    tm_step_bytes(r, at ? (size_t)(at - in->p) - begin : end - begin);
    return at ? (size_t)(at - in->p) : SIZE_MAX;
}

/* Optional start and end in code points, as bytes; false: an empty range that nothing is in. */
static bool bounds(struct tm_run *r, struct tm_str *s, const struct tm_val *p, size_t *begin, size_t *end) {
    *begin = 0;
    *end = s->n;
    if (!given(p[0]) && !given(p[1]))
        return true;
    int64_t len = tm_str_len(r, s);
    int64_t a = given(p[0]) ? tm_need_int(r, p[0], "slice index") : 0;
    int64_t b = given(p[1]) ? tm_need_int(r, p[1], "slice index") : len;
    a = a < -len ? 0 : a < 0 ? a + len : a;
    b = b < -len ? 0 : b < 0 ? b + len : MIN(b, len);
    if (a > b)
        return false;
    *begin = tm_str_at(r, s, a);
    *end = tm_str_at(r, s, b);
    return true;
}

static int64_t index_of(struct tm_run *r, struct tm_str *s, size_t byte) {
    if ((size_t)tm_str_len(r, s) == s->n)
        return (int64_t)byte;
    struct tm_str before = {.p = s->p, .n = byte, .n_cp = -1};
    return tm_str_len(r, &before);
}

static int64_t find(struct tm_run *r, struct tm_val self, const struct tm_val *p, bool last) {
    size_t begin, end;
    struct tm_str *s = tm_need_str(r, p[0], "the text to find");
    if (!bounds(r, self.s, p + 1, &begin, &end))
        return -1;
    size_t at = (last ? rsearch : search)(r, self.s, begin, end, s);
    return at == SIZE_MAX ? -1 : index_of(r, self.s, at);
}

METHOD(m_find) {
    return tm_int(find(r, self, p, false));
}
METHOD(m_rfind) {
    return tm_int(find(r, self, p, true));
}
METHOD(m_index) {
    int64_t at = find(r, self, p, false);
    if (at < 0)
        tm_fail(r, "substring not found");
    return tm_int(at);
}
METHOD(m_rindex) {
    int64_t at = find(r, self, p, true);
    if (at < 0)
        tm_fail(r, "substring not found");
    return tm_int(at);
}

METHOD(m_count) {
    size_t begin, end;
    struct tm_str *s = tm_need_str(r, p[0], "count argument");
    int64_t n = 0;
    if (!bounds(r, self.s, p + 1, &begin, &end))
        return tm_int(0);
    if (s->n == 0)
        return tm_int(index_of(r, self.s, end) - index_of(r, self.s, begin) + 1);
    for (size_t at; (at = search(r, self.s, begin, end, s)) != SIZE_MAX; begin = at + s->n, n++)
        tm_step(r, 1);
    return tm_int(n);
}

static bool affix(struct tm_run *r, struct tm_val self, const struct tm_val *p, bool suffix) {
    size_t begin, end;
    bool in = bounds(r, self.s, p + 1, &begin, &end);
    size_t n = p[0].kind == V_TUPLE ? p[0].l->n : 1;
    for (size_t i = 0; i < n; i++) {
        struct tm_val v = p[0].kind == V_TUPLE ? tm_items(r, p[0])->v[i] : p[0];
        struct tm_str *s = tm_need_str(r, v, suffix ? "endswith argument" : "startswith argument");
        tm_step_bytes(r, s->n + 32);
        if (in && end - begin >= s->n && memcmp(self.s->p + (suffix ? end - s->n : begin), s->p, s->n) == 0)
            return true;
    }
    return false;
}

METHOD(m_startswith) {
    return tm_bool(affix(r, self, p, false));
}
METHOD(m_endswith) {
    return tm_bool(affix(r, self, p, true));
}

/* ---- splitting ---- */

static struct tm_val split_space(struct tm_run *r, const struct tm_str *s, int64_t max, bool right) {
    struct tm_vec out = {0};
    size_t begin = 0, end = s->n;
    unsigned len;
    tm_step_bytes(r, s->n * 4);
    for (;;) {
        struct tm_str rest = {.p = s->p + begin, .n = end - begin};
        struct tm_str *trimmed = tm_str_strip(r, &rest, TM_NONE, !right, right).s;
        begin = (size_t)(trimmed->p - s->p);
        end = begin + trimmed->n;
        if (trimmed->n == 0)
            break;
        if (max-- == 0) { /* what is left is one piece */
            tm_vec_add(r, &out, tm_str_sub(r, s, begin, end));
            break;
        }
        size_t a = begin, b = end;
        if (right) {
            while (a < b) {
                size_t at = b - 1;
                while (at > a && ((unsigned char)s->p[at] & 0xc0) == 0x80)
                    at--;
                if (tm_is_space(tm_utf8_get(s->p + at, s->p + end, &len)))
                    break;
                b = at;
            }
            tm_vec_add(r, &out, tm_str_sub(r, s, b, end));
            end = b;
        } else {
            for (; a < b && !tm_is_space(tm_utf8_get(s->p + a, s->p + end, &len)); a += len)
                ;
            tm_vec_add(r, &out, tm_str_sub(r, s, begin, a));
            begin = a;
        }
    }
    for (size_t i = 0; right && i < out.n / 2; i++) {
        struct tm_val v = out.v[i];
        out.v[i] = out.v[out.n - 1 - i];
        out.v[out.n - 1 - i] = v;
    }
    return tm_vec_list(r, &out, V_LIST);
}

static struct tm_val split(struct tm_run *r, struct tm_str *s, const struct tm_val *p, bool right) {
    int64_t max = given(p[1]) ? tm_need_int(r, p[1], "maxsplit") : -1;
    if (!given(p[0]))
        return split_space(r, s, max, right);
    struct tm_str *sep = tm_need_str(r, p[0], "separator");
    struct tm_vec out = {0};
    if (sep->n == 0)
        tm_fail(r, "empty separator");
    size_t begin = 0, end = s->n, at;
    while (max-- != 0 && (at = (right ? rsearch : search)(r, s, begin, end, sep)) != SIZE_MAX) {
        tm_step(r, 1);
        tm_vec_add(r, &out, right ? tm_str_sub(r, s, at + sep->n, end) : tm_str_sub(r, s, begin, at));
        if (right)
            end = at;
        else
            begin = at + sep->n;
    }
    tm_vec_add(r, &out, tm_str_sub(r, s, begin, end));
    for (size_t i = 0; right && i < out.n / 2; i++) {
        struct tm_val v = out.v[i];
        out.v[i] = out.v[out.n - 1 - i];
        out.v[out.n - 1 - i] = v;
    }
    return tm_vec_list(r, &out, V_LIST);
}

METHOD(m_split) {
    return split(r, self.s, p, false);
}
METHOD(m_rsplit) {
    return split(r, self.s, p, true);
}
METHOD(m_splitlines) {
    return tm_str_lines(r, self.s, p[0].kind != V_MISSING && tm_truth(r, p[0]));
}

static struct tm_val partition(struct tm_run *r, struct tm_str *s, struct tm_val sep_val, bool right) {
    struct tm_str *sep = tm_need_str(r, sep_val, "separator");
    if (sep->n == 0)
        tm_fail(r, "empty separator");
    size_t at = (right ? rsearch : search)(r, s, 0, s->n, sep);
    struct tm_val t = tm_list(r, V_TUPLE, 3), none = tm_str_as(r, tm_strz(r, ""), s->markup);
    t.l->v[0] = at != SIZE_MAX ? tm_str_sub(r, s, 0, at) : right ? none : tm_of_str(s);
    t.l->v[1] = at != SIZE_MAX ? tm_str_sub(r, s, at, at + sep->n) : none;
    t.l->v[2] = at != SIZE_MAX ? tm_str_sub(r, s, at + sep->n, s->n) : right ? tm_of_str(s) : none;
    return t;
}

METHOD(m_partition) {
    return partition(r, self.s, p[0], false);
}
METHOD(m_rpartition) {
    return partition(r, self.s, p[0], true);
}

METHOD(m_join) {
    if (!self.s->markup)
        return tm_join(r, self.s, p[0], TM_MISSING, false);
    struct tm_val list = tm_to_list(r, p[0], V_LIST), escaped = tm_list(r, V_LIST, list.l->n);
    for (size_t i = 0; i < list.l->n; i++)
        escaped.l->v[i] = tm_escape(r, list.l->v[i]);
    return tm_str_as(r, tm_join(r, self.s, escaped, TM_MISSING, false), true);
}

/* ---- padding ---- */

static struct tm_val pad(struct tm_run *r, struct tm_str *s, const struct tm_val *p, char align) {
    struct tm_str *fill = NULL;
    if (p[1].kind != V_MISSING) {
        fill = tm_need_str(r, p[1], "fill character");
        if (tm_str_len(r, fill) != 1)
            tm_fail(r, "The fill character must be exactly one character long");
    }
    return tm_str_pad(r, s, tm_need_int(r, p[0], "width"), fill, align);
}

METHOD(m_center) {
    return pad(r, self.s, p, '^');
}
METHOD(m_ljust) {
    return pad(r, self.s, p, '<');
}
METHOD(m_rjust) {
    return pad(r, self.s, p, '>');
}

METHOD(m_zfill) {
    static const struct tm_str zero = {.p = "0", .n = 1, .n_cp = 1};
    int64_t width = tm_need_int(r, p[0], "width");
    size_t sign = self.s->n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    struct tm_cap outer = tm_cap_begin(r);
    tm_put_sub(r, self.s, 0, sign);
    int64_t zeros = MIN(width, (int64_t)INT32_MAX) - tm_str_len(r, self.s);
    tm_put_fill(r, &zero, zeros);
    tm_put_sub(r, self.s, sign, self.s->n);
    return tm_str_as(r, tm_cap_end(r, outer), self.s->markup);
}

METHOD(m_expandtabs) {
    static const struct tm_str space = {.p = " ", .n = 1, .n_cp = 1};
    int64_t size = given(p[0]) ? tm_need_int(r, p[0], "tab size") : 8, column = 0;
    struct tm_str *s = self.s;
    struct tm_cap outer = tm_cap_begin(r);
    size_t plain = 0;
    tm_step_bytes(r, s->n * 4);
    for (size_t i = 0; i < s->n; i++) {
        char ch = s->p[i];
        if (ch == '\t') {
            tm_put_sub(r, s, plain, i);
            int64_t n = size > 0 ? size - column % size : 0;
            tm_put_fill(r, &space, n);
            column += n;
            plain = i + 1;
        } else if (ch == '\n' || ch == '\r') {
            column = 0;
        } else if (((unsigned char)ch & 0xc0) != 0x80) {
            column++;
        }
    }
    tm_put_sub(r, s, plain, s->n);
    return tm_str_as(r, tm_cap_end(r, outer), s->markup);
}

/* ---- questions ---- */

/* Whether every code point has one of the flags, and there is at least one. */
static bool all(struct tm_run *r, const struct tm_str *s, uint32_t flags) {
    const char *end = s->p + s->n;
    unsigned len;
    tm_step_bytes(r, s->n * 4);
    for (const char *p = s->p; p < end; p += len)
        if (!(tm_ucd(tm_utf8_get(p, end, &len))->flags & flags))
            return false;
    return s->n > 0;
}

METHOD(m_isdigit) {
    return tm_bool(all(r, self.s, UCD_DIGIT));
}
METHOD(m_isdecimal) {
    return tm_bool(all(r, self.s, UCD_DECIMAL));
}
METHOD(m_isnumeric) {
    return tm_bool(all(r, self.s, UCD_NUMERIC));
}
METHOD(m_isalpha) {
    return tm_bool(all(r, self.s, UCD_ALPHA));
}
METHOD(m_isalnum) {
    return tm_bool(all(r, self.s, UCD_ALPHA | UCD_DECIMAL | UCD_DIGIT | UCD_NUMERIC));
}
METHOD(m_isspace) {
    return tm_bool(all(r, self.s, UCD_SPACE));
}
METHOD(m_isprintable) {
    return tm_bool(self.s->n == 0 || all(r, self.s, UCD_PRINTABLE));
}
METHOD(m_isascii) {
    return tm_bool((size_t)tm_str_len(r, self.s) == self.s->n);
}

METHOD(m_isidentifier) {
    unsigned len = 0;
    struct tm_str *s = self.s;
    if (s->n == 0 || !(tm_ucd(tm_utf8_get(s->p, s->p + s->n, &len))->flags & UCD_ID_START))
        return tm_bool(false);
    struct tm_str rest = {.p = s->p + len, .n = s->n - len};
    return tm_bool(rest.n == 0 || all(r, &rest, UCD_ID_CONTINUE));
}

/* Whether there is a cased letter and all of them are of this case. */
static bool cased(struct tm_run *r, const struct tm_str *s, uint32_t want, uint32_t wrong) {
    const char *end = s->p + s->n;
    unsigned len;
    bool any = false;
    tm_step_bytes(r, s->n * 4);
    for (const char *p = s->p; p < end; p += len) {
        uint32_t f = tm_ucd(tm_utf8_get(p, end, &len))->flags;
        if (f & wrong)
            return false;
        any = any || f & want;
    }
    return any;
}

bool tm_str_is_case(struct tm_run *r, const struct tm_str *s, bool upper) {
    return upper ? cased(r, s, UCD_UPPER, UCD_LOWER | UCD_TITLE)
                 : cased(r, s, UCD_LOWER, UCD_UPPER | UCD_TITLE);
}

METHOD(m_isupper) {
    return tm_bool(tm_str_is_case(r, self.s, true));
}
METHOD(m_islower) {
    return tm_bool(tm_str_is_case(r, self.s, false));
}

METHOD(m_istitle) {
    const char *end = self.s->p + self.s->n;
    unsigned len;
    bool any = false, in_word = false;
    tm_step_bytes(r, self.s->n * 4);
    for (const char *q = self.s->p; q < end; q += len) {
        uint32_t f = tm_ucd(tm_utf8_get(q, end, &len))->flags;
        bool upper = f & (UCD_UPPER | UCD_TITLE), lower = f & UCD_LOWER;
        if ((upper && in_word) || (lower && !in_word))
            return tm_bool(false);
        in_word = upper || lower;
        any = any || in_word;
    }
    return tm_bool(any);
}

METHOD(m_format) {
    return tm_str_format(r, self.s, args);
}

METHOD(m_format_map) {
    struct tm_args named = {0};
    if (args->n != 1 || args->n_kw || args->v[0].kind != V_DICT)
        tm_fail(r, "format_map takes one dict");
    const struct tm_dict *d = tm_entries(r, args->v[0].d);
    named.kw = tm_alloc(r, d->n * sizeof *named.kw);
    for (size_t i = 0; i < d->n; i++) {
        if (d->e[i].key.kind != V_STR)
            continue;
        const struct tm_str *s = d->e[i].key.s;
        named.kw[named.n_kw++] = (struct tm_kwarg){{s->p, s->n}, d->e[i].value};
    }
    return tm_str_format(r, self.s, &named);
}

const struct tm_callable tm_str_methods[] = {{"strip", m_strip, 0, 1, {""}},
                                             {"lstrip", m_lstrip, 0, 1, {""}},
                                             {"rstrip", m_rstrip, 0, 1, {""}},
                                             {"split", m_split, 0, 2, {"sep", "maxsplit"}},
                                             {"rsplit", m_rsplit, 0, 2, {"sep", "maxsplit"}},
                                             {"splitlines", m_splitlines, 0, 1, {"keepends"}},
                                             {"startswith", m_startswith, 1, 3, {""}},
                                             {"endswith", m_endswith, 1, 3, {""}},
                                             {"upper", m_upper, 0, 0, {0}},
                                             {"lower", m_lower, 0, 0, {0}},
                                             {"title", m_title, 0, 0, {0}},
                                             {"capitalize", m_capitalize, 0, 0, {0}},
                                             {"swapcase", m_swapcase, 0, 0, {0}},
                                             {"replace", m_replace, 2, 3, {""}},
                                             {"removeprefix", m_removeprefix, 1, 1, {""}},
                                             {"removesuffix", m_removesuffix, 1, 1, {""}},
                                             {"find", m_find, 1, 3, {""}},
                                             {"rfind", m_rfind, 1, 3, {""}},
                                             {"index", m_index, 1, 3, {""}},
                                             {"rindex", m_rindex, 1, 3, {""}},
                                             {"count", m_count, 1, 3, {""}},
                                             {"join", m_join, 1, 1, {""}},
                                             {"partition", m_partition, 1, 1, {""}},
                                             {"rpartition", m_rpartition, 1, 1, {""}},
                                             {"center", m_center, 1, 2, {""}},
                                             {"ljust", m_ljust, 1, 2, {""}},
                                             {"rjust", m_rjust, 1, 2, {""}},
                                             {"zfill", m_zfill, 1, 1, {""}},
                                             {"expandtabs", m_expandtabs, 0, 1, {"tabsize"}},
                                             {"isdigit", m_isdigit, 0, 0, {0}},
                                             {"isdecimal", m_isdecimal, 0, 0, {0}},
                                             {"isnumeric", m_isnumeric, 0, 0, {0}},
                                             {"isalpha", m_isalpha, 0, 0, {0}},
                                             {"isalnum", m_isalnum, 0, 0, {0}},
                                             {"isspace", m_isspace, 0, 0, {0}},
                                             {"isupper", m_isupper, 0, 0, {0}},
                                             {"islower", m_islower, 0, 0, {0}},
                                             {"istitle", m_istitle, 0, 0, {0}},
                                             {"isascii", m_isascii, 0, 0, {0}},
                                             {"isprintable", m_isprintable, 0, 0, {0}},
                                             {"isidentifier", m_isidentifier, 0, 0, {0}},
                                             {"format", m_format, 0, TM_VARARGS, {0}},
                                             {"format_map", m_format_map, 0, TM_VARARGS, {0}},
                                             {"encode", NULL, 1, 0, {0}},
                                             {"casefold", NULL, 1, 0, {0}},
                                             {"translate", NULL, 1, 0, {0}},
                                             {"maketrans", NULL, 1, 0, {0}},
                                             {NULL, NULL, 0, 0, {0}}};
