#include "common/text/split.h"

#include "common/text/uni.h"

/* The kind of the character at p[at], and its length. Most text is ASCII: one load. */
static const uint8_t ascii_kind[128] = {
    ['\t'] = UNI_SPACE,         ['\n'] = UNI_SPACE,         ['\v'] = UNI_SPACE,
    ['\f'] = UNI_SPACE,         ['\r'] = UNI_SPACE,         [' '] = UNI_SPACE,
    ['0' ... '9'] = UNI_NUMBER, ['A' ... 'Z'] = UNI_LETTER, ['a' ... 'z'] = UNI_LETTER,
};

static inline enum uni_kind kind_at(const char *p, size_t at, size_t *len) {
    uint8_t b = (uint8_t)p[at];
    if (LIKELY(b < 0x80)) {
        *len = 1;
        return (enum uni_kind)ascii_kind[b];
    }
    return uni_kind(uni_decode(p + at, len));
}

/* run: the end of the run of kind that starts at or before at. */
static inline size_t run(const char *p, size_t at, size_t n, enum uni_kind kind) {
    while (at < n) {
        size_t len;
        if (kind_at(p, at, &len) != kind)
            break;
        at += len;
    }
    return at;
}

/* contraction: the end of 's 't 're 've 'm 'll 'd at p[at] == '\'', or at. With fold, in either case,
 * and U+017F (long s) counts as s: that is its simple case folding. */
static size_t contraction(const char *p, size_t at, size_t n, bool fold) {
    size_t left = n - at - 1;
    if (left == 0)
        return at;
    uint8_t a = (uint8_t)p[at + 1];
    if (fold && a == 0xC5 && left >= 2 && (uint8_t)p[at + 2] == 0xBF)
        return at + 3;
    if (fold && a >= 'A' && a <= 'Z')
        a |= 0x20;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return at + 2;
    if (left < 2)
        return at;
    uint8_t b = (uint8_t)p[at + 2];
    if (fold && b >= 'A' && b <= 'Z')
        b |= 0x20;
    if ((b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l'))
        return at + 3;
    return at;
}

/* spaces: \s+(?!\S)|\s+ over the run [at, end): all of it at the end of the text, else all but its
 * last character, which goes to what follows, unless it is the only one. */
static size_t spaces(const char *p, size_t at, size_t end, size_t n) {
    if (end == n)
        return end;
    size_t last = uni_prev(p, end);
    return last > at ? last : end;
}

size_t split_gpt2(const char *p, size_t at, size_t n) {
    size_t len, next = at;
    if (p[at] == '\'') {
        size_t end = contraction(p, at, n, false);
        if (end > at)
            return end;
    }
    if (p[at] == ' ' && at + 1 < n)
        next = at + 1;
    enum uni_kind kind = kind_at(p, next, &len);
    if (kind != UNI_SPACE)
        return run(p, next + len, n, kind);
    return spaces(p, at, run(p, at, n, UNI_SPACE), n);
}

static inline bool is_newline(char c) {
    return c == '\n' || c == '\r';
}

static inline size_t split_llama(const char *p, size_t at, size_t n, int n_digits_max) {
    size_t len, next_len;
    if (p[at] == '\'') {
        size_t end = contraction(p, at, n, true);
        if (end > at)
            return end;
    }
    enum uni_kind kind = kind_at(p, at, &len);
    size_t next = at + len;
    if (kind == UNI_LETTER)
        return run(p, next, n, UNI_LETTER);
    if (kind == UNI_NUMBER) {
        for (int i = 1; i < n_digits_max && next < n && kind_at(p, next, &len) == UNI_NUMBER; i++)
            next += len;
        return next;
    }
    enum uni_kind after = next < n ? kind_at(p, next, &next_len) : UNI_SPACE;
    if (after == UNI_LETTER && !is_newline(p[at]))
        return run(p, next + next_len, n, UNI_LETTER);
    if (kind == UNI_OTHER || (p[at] == ' ' && after == UNI_OTHER)) {
        next = run(p, next, n, UNI_OTHER);
        while (next < n && is_newline(p[next]))
            next++;
        return next;
    }
    size_t end = run(p, next, n, UNI_SPACE), last = end;
    while (last > at && !is_newline(p[last - 1]))
        last--;
    return last > at ? last : spaces(p, at, end, n);
}

size_t split_llama3(const char *p, size_t at, size_t n) {
    return split_llama(p, at, n, 3);
}

size_t split_qwen2(const char *p, size_t at, size_t n) {
    return split_llama(p, at, n, 1);
}

const char split_pattern_qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

split_fn *split_by_pattern(struct str pattern) {
    static const struct {
        const char *pattern;
        split_fn *fn;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", split_gpt2},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         split_llama3},
        {split_pattern_qwen2, split_qwen2},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_eqz(pattern, known[i].pattern))
            return known[i].fn;
    return NULL;
}
