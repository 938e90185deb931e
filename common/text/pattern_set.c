/* pattern_set.c: sets of characters, and the names they have in patterns. */
#include "common/text/pattern_impl.h"

#include "common/text/class_tab.h"

#include <stdlib.h>

void pat_set_fini(struct pat_set *s) {
    free(s->v);
    *s = (struct pat_set){0};
}

static void push(struct pat_set *s, uint32_t low, uint32_t high) {
    if (s->n && low <= s->v[s->n - 1].high + 1) { /* in order of low */
        s->v[s->n - 1].high = MAX(s->v[s->n - 1].high, high);
        return;
    }
    if (s->n == s->cap) {
        s->cap = MAX(s->cap * 2, (size_t)8);
        s->v = xreallocarray(s->v, s->cap, sizeof *s->v);
    }
    s->v[s->n++] = (struct pat_range){low, high};
}

void pat_set_join(struct pat_set *s, const struct pat_set *other) {
    struct pat_set out = {0};
    size_t i = 0, k = 0;
    while (i < s->n || k < other->n) {
        bool own = k == other->n || (i < s->n && s->v[i].low <= other->v[k].low);
        struct pat_range r = own ? s->v[i++] : other->v[k++];
        push(&out, r.low, r.high);
    }
    pat_set_fini(s);
    *s = out;
}

void pat_set_add(struct pat_set *s, uint32_t low, uint32_t high) {
    if (s->n == 0 || low >= s->v[s->n - 1].low) {
        push(s, low, high);
        return;
    }
    struct pat_range r = {low, high};
    pat_set_join(s, &(struct pat_set){.v = &r, .n = 1});
}

void pat_set_negate(struct pat_set *s) {
    struct pat_set out = {0};
    uint32_t next = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].low > next)
            push(&out, next, s->v[i].low - 1);
        next = s->v[i].high + 1;
    }
    if (next <= UNI_MAX)
        push(&out, next, UNI_MAX);
    pat_set_fini(s);
    *s = out;
}

void pat_set_meet(struct pat_set *s, const struct pat_set *other) {
    struct pat_set out = {0};
    for (size_t i = 0, k = 0; i < s->n && k < other->n;) {
        uint32_t low = MAX(s->v[i].low, other->v[k].low), high = MIN(s->v[i].high, other->v[k].high);
        if (low <= high)
            push(&out, low, high);
        if (s->v[i].high < other->v[k].high)
            i++;
        else
            k++;
    }
    pat_set_fini(s);
    *s = out;
}

bool pat_set_has(const struct pat_set *s, uint32_t cp) {
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (cp > s->v[mid].high)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->n && s->v[low].low <= cp;
}

const uint32_t *pat_fold_of(uint32_t cp) {
    size_t low = 0, high = CLASS_N_FOLDS;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (class_folds[mid].cp < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < CLASS_N_FOLDS && class_folds[low].cp == cp ? class_folds[low].to : NULL;
}

static int by_low(const void *a, const void *b) {
    const struct pat_range *x = a, *y = b;
    return x->low < y->low ? -1 : x->low > y->low;
}

void pat_set_fold(struct pat_set *s) {
    struct pat_range *more = xreallocarray(NULL, 3 * CLASS_N_FOLDS, sizeof *more);
    struct pat_set sorted = {0};
    size_t n = 0;
    for (size_t i = 0; i < CLASS_N_FOLDS; i++)
        for (size_t k = 0; k < 3 && class_folds[i].to[k] && pat_set_has(s, class_folds[i].cp); k++)
            more[n++] = (struct pat_range){class_folds[i].to[k], class_folds[i].to[k]};
    if (n)
        qsort(more, n, sizeof *more, by_low);
    for (size_t i = 0; i < n; i++)
        push(&sorted, more[i].low, more[i].high);
    free(more);
    pat_set_join(s, &sorted);
    pat_set_fini(&sorted);
}

/* ---- names ---- */

/* add_runs: the runs whose value, less what mask hides, is one that want has a bit for. */
static void add_runs(struct pat_set *s, const uint32_t *runs, size_t n, unsigned mask, unsigned value) {
    struct pat_set found = {0};
    for (size_t i = 0; i < n; i++)
        if ((runs[i] & 0xFF & mask) == value)
            push(&found, runs[i] >> 8, i + 1 < n ? (runs[i + 1] >> 8) - 1 : UNI_MAX);
    pat_set_join(s, &found);
    pat_set_fini(&found);
}

/* add_categories: those whose name starts with one of the n characters of heads. */
static void add_categories(struct pat_set *s, const char *heads) {
    for (unsigned i = 0; i < CLASS_N_CATEGORIES; i++)
        if (strchr(heads, class_category_names[i][0]))
            add_runs(s, class_runs, CLASS_N_RUNS, CLASS_CATEGORY_MASK, i);
}

static void add_category(struct pat_set *s, const char *name) {
    for (unsigned i = 0; i < CLASS_N_CATEGORIES; i++)
        if (strcmp(class_category_names[i], name) == 0)
            add_runs(s, class_runs, CLASS_N_RUNS, CLASS_CATEGORY_MASK, i);
}

static void add_space(struct pat_set *s) {
    add_categories(s, "Z");
    pat_set_add(s, '\t', '\r');
    pat_set_add(s, 0x85, 0x85);
}

static void add_alpha(struct pat_set *s) {
    add_runs(s, class_runs, CLASS_N_RUNS, CLASS_IS_ALPHA, CLASS_IS_ALPHA);
}

static void add_word(struct pat_set *s) {
    add_alpha(s);
    add_categories(s, "M");
    add_category(s, "Nd");
    add_category(s, "Pc");
}

void pat_set_word(struct pat_set *s) {
    static const uint8_t more[] = {0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE};
    add_word(s);
    for (size_t i = 0; i < ARRAY_LEN(more); i++)
        pat_set_add(s, more[i], more[i]);
}

static void add_graph(struct pat_set *s) {
    struct pat_set others = {0};
    add_space(&others);
    add_category(&others, "Cc");
    add_category(&others, "Cn");
    pat_set_negate(&others);
    pat_set_join(s, &others);
    pat_set_fini(&others);
}

static void add_alnum(struct pat_set *s) {
    add_alpha(s);
    add_category(s, "Nd");
}
static void add_blank(struct pat_set *s) {
    add_category(s, "Zs");
    pat_set_add(s, '\t', '\t');
}
static void add_cntrl(struct pat_set *s) {
    add_category(s, "Cc");
}
static void add_digit(struct pat_set *s) {
    add_category(s, "Nd");
}
static void add_lower(struct pat_set *s) {
    add_runs(s, class_runs, CLASS_N_RUNS, CLASS_IS_LOWER, CLASS_IS_LOWER);
}
static void add_upper(struct pat_set *s) {
    add_runs(s, class_runs, CLASS_N_RUNS, CLASS_IS_UPPER, CLASS_IS_UPPER);
}
static void add_print(struct pat_set *s) {
    add_graph(s);
    add_category(s, "Zs");
}
static void add_punct(struct pat_set *s) {
    add_categories(s, "P");
}
static void add_posix_punct(struct pat_set *s) {
    add_categories(s, "PS");
}
static void add_xdigit(struct pat_set *s) {
    pat_set_add(s, '0', '9');
    pat_set_add(s, 'A', 'F');
    pat_set_add(s, 'a', 'f');
}
static void add_ascii(struct pat_set *s) {
    pat_set_add(s, 0, 127);
}
static void add_any(struct pat_set *s) {
    pat_set_add(s, 0, UNI_MAX);
}
static void add_assigned(struct pat_set *s) {
    struct pat_set set = {0};
    add_category(&set, "Cn");
    pat_set_negate(&set);
    pat_set_join(s, &set);
    pat_set_fini(&set);
}
static void add_cased(struct pat_set *s) {
    add_category(s, "Lu");
    add_category(s, "Ll");
    add_category(s, "Lt");
}

enum { IN_BRACKETS = 1, BY_PROPERTY = 2 };

/* What has a name beside categories and scripts. */
static const struct {
    const char *name;
    void (*add)(struct pat_set *s);
    int where;
} classes[] = {
    {"alnum", add_alnum, 3},       {"alpha", add_alpha, 3},
    {"blank", add_blank, 3},       {"cntrl", add_cntrl, 3},
    {"digit", add_digit, 3},       {"graph", add_graph, 3},
    {"lower", add_lower, 3},       {"print", add_print, 3},
    {"space", add_space, 3},       {"upper", add_upper, 3},
    {"xdigit", add_xdigit, 3},     {"ascii", add_ascii, 3},
    {"word", add_word, 1},         {"word", pat_set_word, 2},
    {"punct", add_posix_punct, 1}, {"punct", add_punct, 2},
    {"any", add_any, 2},           {"assigned", add_assigned, 2},
    {"lc", add_cased, 2},          {"alphabetic", add_alpha, 2},
    {"lowercase", add_lower, 2},   {"uppercase", add_upper, 2},
    {"whitespace", add_space, 2},
};

static bool add_class(struct pat_set *s, const char *name, int where) {
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        if ((classes[i].where & where) && strcmp(name, classes[i].name) == 0) {
            classes[i].add(s);
            return true;
        }
    return false;
}

/* Long names of categories and groups of them, as \p{} takes them. */
static const char *const long_names[][2] = {
    {"letter", "L"}, {"mark", "M"}, {"combiningmark", "M"}, {"number", "N"}, {"punctuation", "P"},
    {"symbol", "S"}, {"separator", "Z"}, {"other", "C"}, {"casedletter", "LC"}, {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"}, {"titlecaseletter", "Lt"}, {"modifierletter", "Lm"}, {"otherletter", "Lo"},
    {"nonspacingmark", "Mn"}, {"spacingmark", "Mc"}, {"enclosingmark", "Me"}, {"decimalnumber", "Nd"},
    {"letternumber", "Nl"}, {"othernumber", "No"}, {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"}, {"openpunctuation", "Ps"}, {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"}, {"finalpunctuation", "Pf"}, {"otherpunctuation", "Po"},
    {"mathsymbol", "Sm"}, {"currencysymbol", "Sc"}, {"modifiersymbol", "Sk"}, {"othersymbol", "So"},
    {"spaceseparator", "Zs"}, {"lineseparator", "Zl"}, {"paragraphseparator", "Zp"}, {"control", "Cc"},
    {"format", "Cf"}, {"privateuse", "Co"}, {"surrogate", "Cs"}, {"unassigned", "Cn"},
};

/* plain_name: in lower case, without spaces, - and _. */
static bool plain_name(struct str name, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (c == ' ' || c == '-' || c == '_')
            continue;
        if (n + 1 == size)
            return false;
        out[n++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    out[n] = '\0';
    return n > 0;
}

static bool names_equal(const char *plain, const char *name) {
    char own[48];
    return plain_name(str_of(name), own, sizeof own) && strcmp(plain, own) == 0;
}

bool pat_set_named(struct pat_set *s, struct str name, bool bracket) {
    char plain[48];
    if (!plain_name(name, plain, sizeof plain))
        return false;
    if (add_class(s, plain, bracket ? IN_BRACKETS : BY_PROPERTY))
        return true;
    if (bracket)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(long_names); i++)
        if (strcmp(plain, long_names[i][0]) == 0)
            return pat_set_named(s, str_of(long_names[i][1]), false);
    if (plain[1] == '\0' && strchr("lmnpszc", plain[0])) {
        add_categories(s, (const char[]){(char)(plain[0] & ~0x20), '\0'});
        return true;
    }
    for (unsigned i = 0; i < CLASS_N_CATEGORIES; i++)
        if (names_equal(plain, class_category_names[i])) {
            add_category(s, class_category_names[i]);
            return true;
        }
    for (unsigned i = 0; i < CLASS_N_SCRIPTS; i++)
        if (names_equal(plain, class_script_names[i][0]) || names_equal(plain, class_script_names[i][1])) {
            add_runs(s, class_script_runs, CLASS_N_SCRIPT_RUNS, 0xFF, i);
            return true;
        }
    return false;
}

/* ---- searching ---- */

bool pat_class_init(struct pat_class *c, const struct pat_set *s) {
    enum { N_BLOCKS = (UNI_MAX + 1) >> 8, N_MAX = 256 };
    size_t n = 0, at = 0;
    c->blocks = xcalloc(N_MAX, sizeof *c->blocks);
    for (uint32_t cp = 0; cp < 128; cp++)
        c->ascii[cp] = pat_set_has(s, cp);
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        uint8_t block[32] = {0};
        while (at < s->n && s->v[at].high < b << 8)
            at++;
        for (size_t i = at; i < s->n && s->v[i].low <= (b << 8 | 255); i++)
            for (uint32_t cp = MAX(s->v[i].low, b << 8); cp <= MIN(s->v[i].high, b << 8 | 255); cp++)
                block[(cp & 255) >> 3] |= (uint8_t)(1u << (cp & 7));
        size_t k = 0;
        while (k < n && memcmp(c->blocks[k], block, sizeof block) != 0)
            k++;
        if (k == N_MAX)
            return false;
        if (k == n)
            memcpy(c->blocks[n++], block, sizeof block);
        c->index[b] = (uint8_t)k;
    }
    return true;
}
