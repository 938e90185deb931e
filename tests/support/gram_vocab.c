#include "tests/support/gram_vocab.h"

#include "common/buf.h"
#include "common/utf8.h"

#include <stdlib.h>

struct maker {
    struct buf bytes;
    uint32_t *begin; /* [n + 1] */
    uint32_t n, max;
    uint64_t seed;
    uint32_t *slot; /* of a table by bytes: index + 1 */
    uint32_t n_slots;
};

static uint32_t below(struct maker *m, uint32_t n) {
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((m->seed >> 33) % n);
}

/* put: a token, unless it is there already or the vocabulary is full. */
static void put(struct maker *m, struct str s) {
    uint64_t h = 7;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3u;
    uint32_t at = (uint32_t)(h ^ h >> 29) & (m->n_slots - 1);
    for (; m->slot[at]; at = (at + 1) & (m->n_slots - 1)) {
        uint32_t i = m->slot[at] - 1;
        if (str_eq(s, (struct str){m->bytes.data + m->begin[i], m->begin[i + 1] - m->begin[i]}))
            return;
    }
    if (m->n == m->max || !s.n)
        return;
    m->slot[at] = m->n + 1;
    buf_add_str(&m->bytes, s);
    m->begin[++m->n] = (uint32_t)m->bytes.len;
}

static void put_joined(struct maker *m, const char *front, struct str s) {
    char text[64];
    size_t n = strlen(front);
    if (n + s.n > sizeof text)
        return;
    memcpy(text, front, n);
    memcpy(text + n, s.p, s.n);
    put(m, (struct str){text, n + s.n});
}

static void put_signs(struct maker *m) {
    static const char *const sign[] = {"\"", "\"",  ":",    ",", "{", "}",  "[", "]",  "(",  ")",       ".",
                                       ";",  "'",   "/",    "<", ">", "=",  "-", "_",  "*",  "#",       "!",
                                       "?",  "\\",  "|",    "&", "+", "$",  "%", "@",  "\n", "\n\n",    " ",
                                       "  ", "\\n", "\\\"", "0", "1", "\t", "`", "//", "</", "\xC2\xA0"};
    for (uint32_t i = 0; i < 9000; i++) {
        char text[32] = "";
        for (uint32_t k = 1 + below(m, 4); k > 0; k--)
            strcat(text, sign[below(m, below(m, 2) ? 12 : ARRAY_LEN(sign))]);
        put(m, str_of(text));
    }
}

static void put_runs(struct maker *m) {
    char run[96];
    static const char of[] = " \t\n-=*#_./";
    for (size_t k = 0; of[k]; k++)
        for (size_t n = 1; n <= (k ? 32 : 90); n += n < 16 ? 1 : 4) {
            memset(run, of[k], n);
            put(m, (struct str){run, n});
        }
    for (unsigned i = 0; i < 1000; i++)
        for (unsigned width = i < 10 ? 1 : i < 100 ? 2 : 3; width <= 3; width++) {
            char digits[3] = {(char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10)};
            put(m, (struct str){digits + 3 - width, width});
        }
}

/* word: syllables; returns its length. */
static size_t word(struct maker *m, char out[48]) {
    static const char *const head[] = {"b",  "c",  "d",  "f",  "g",  "h",  "j",  "k",  "l", "m",
                                       "n",  "p",  "r",  "s",  "t",  "v",  "w",  "y",  "z", "st",
                                       "tr", "ch", "sh", "th", "pr", "gr", "bl", "cr", "",  ""};
    static const char *const body[] = {"a", "e", "i", "o", "u", "ea", "ou", "io", "ai", "y"};
    static const char *const tail[] = {"", "", "", "n", "r", "s", "t", "l", "m", "nt", "ng", "ck", "st", "d"};
    static const char *const end[] = {"",     "",     "",     "s",    "ed", "ing", "er",  "ly",
                                      "tion", "ment", "able", "ness", "Id", "_id", "Name"};
    out[0] = '\0';
    for (uint32_t k = 1 + below(m, 3); k > 0; k--) {
        strcat(out, head[below(m, ARRAY_LEN(head))]);
        strcat(out, body[below(m, ARRAY_LEN(body))]);
        strcat(out, tail[below(m, ARRAY_LEN(tail))]);
    }
    strcat(out, end[below(m, ARRAY_LEN(end))]);
    return strlen(out);
}

static void put_words(struct maker *m, uint32_t until) {
    while (m->n < until) {
        char w[48];
        struct str s = {w, word(m, w)};
        uint32_t kind = below(m, 40);
        put_joined(m, " ", s);
        if (kind < 16)
            put(m, s);
        if (kind == 20)
            put_joined(m, "_", s);
        if (kind == 21)
            put_joined(m, ".", s);
        if (kind == 22)
            put_joined(m, "\"", s);
        if (kind == 23)
            put_joined(m, "(", s);
        w[0] = (char)(w[0] >= 'a' && w[0] <= 'z' ? w[0] - 32 : w[0]);
        if (kind < 8)
            put(m, s);
        if (kind > 28)
            put_joined(m, " ", s);
    }
}

/* put_foreign: words of a script, and its characters cut in the middle. */
static void put_foreign(struct maker *m, uint32_t until, uint32_t lo, uint32_t hi, uint32_t n_max) {
    while (m->n < until) {
        char w[48];
        size_t n = 0;
        for (uint32_t k = 1 + below(m, n_max); k > 0; k--)
            n += utf8_encode(lo + below(m, hi - lo), w + n);
        if (below(m, 3) == 0)
            put_joined(m, " ", (struct str){w, n});
        else
            put(m, (struct str){w, below(m, 12) ? n : n - 1});
    }
}

struct str *made_vocab(uint32_t n, char **bytes) {
    struct maker m = {.seed = 42, .max = n - 256, .n_slots = 1};
    CHECK(n >= 16384);
    while (m.n_slots < 2 * n)
        m.n_slots *= 2;
    m.slot = xcalloc(m.n_slots, sizeof *m.slot);
    m.begin = xcalloc((size_t)n + 1, sizeof *m.begin);
    for (unsigned b = 0; b < 256; b++)
        put(&m, (struct str){&(char){(char)b}, 1});
    put_runs(&m);
    put_signs(&m);
    uint32_t left = m.max - m.n;
    put_words(&m, m.n + left / 4 * 3);
    put_foreign(&m, m.n + left / 12, 0x430, 0x450, 6);
    put_foreign(&m, m.n + left / 24, 0x3B1, 0x3C9, 5);
    put_foreign(&m, m.max, 0x4E00, 0x5E00, 3);
    struct str *s = xcalloc(n, sizeof *s);
    *bytes = buf_take(&m.bytes);
    for (uint32_t i = 0; i < m.n; i++)
        s[i] = (struct str){*bytes + m.begin[i], m.begin[i + 1] - m.begin[i]};
    free(m.slot);
    free(m.begin);
    return s;
}
