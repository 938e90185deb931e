/* uni.h: UTF-8 and the Unicode facts of tokenizers (tables: unicode_tab.h).
 *
 * Pure functions over immutable tables; any thread.
 */
#ifndef WEIR_COMMON_TEXT_UNI_H
#define WEIR_COMMON_TEXT_UNI_H

#include "common/base.h"
#include "common/text/unicode_tab.h"

enum { UNI_MAX = 0x10FFFF, UNI_REPLACEMENT = 0xFFFD };

/* What the splitters distinguish: \p{L}, \p{N}, \s and all else. */
enum uni_kind { UNI_OTHER, UNI_LETTER, UNI_NUMBER, UNI_SPACE };
enum { UNI_KIND_MASK = 3, UNI_WORD = 4, UNI_NFC_UNSAFE = 8 };

/* uni_flags: the kind in the low bits; UNI_WORD for \w; UNI_NFC_UNSAFE if NFC may change the character
 * or join it to what stands before it. */
static inline unsigned uni_flags(uint32_t cp) {
    unsigned two = uni_class_block[(size_t)uni_class_index[cp >> 7] * 64 + ((cp & 127) >> 1)];
    return (two >> ((cp & 1) * 4)) & 15;
}
static inline enum uni_kind uni_kind(uint32_t cp) {
    return (enum uni_kind)(uni_flags(cp) & UNI_KIND_MASK);
}

/* uni_props: what the parts for BERT and SentencePiece models distinguish. */
enum {
    UNI_IS_PUNCT = 1,       /* punctuation beyond what ASCII calls so, too */
    UNI_IS_DROPPED = 2,     /* BERT's clean_text takes it away */
    UNI_IS_ACCENT = 4,      /* BERT's strip_accents does, once decomposed */
    UNI_IS_MARK = 8,        /* StripAccents does */
    UNI_HAS_LOWER = 16,     /* uni_lower_of changes it */
    UNI_IS_COMPAT = 32,     /* NFKD differs from NFD */
    UNI_IS_NFD_UNSAFE = 64, /* NFD may change or move it */
    UNI_IS_NUMERIC = 128,   /* Digits cuts at it */
    UNI_GRAPHEME_SHIFT = 8, /* from here up: enum uni_grapheme */
};
static inline unsigned uni_props(uint32_t cp) {
    return uni_props_block[(size_t)uni_props_index[cp >> 7] * 128 + (cp & 127)];
}
static inline bool uni_is_space(uint32_t cp) {
    return uni_kind(cp) == UNI_SPACE;
}
/* uni_lower_of: the lower case, one or two characters to out; returns how many. */
size_t uni_lower_of(uint32_t cp, uint32_t out[2]);
/* uni_grapheme_end: the end of the extended grapheme cluster (UAX 29) that starts at p[at], at < n. */
size_t uni_grapheme_end(const char *p, size_t at, size_t n);

/* uni_decode: the character at p, which must be valid UTF-8; its length goes to *len. */
static inline uint32_t uni_decode(const char *p, size_t *len) {
    const uint8_t *s = (const uint8_t *)p;
    if (s[0] < 0x80) {
        *len = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *len = 2;
        return (uint32_t)(s[0] & 0x1F) << 6 | (s[1] & 0x3F);
    }
    if (s[0] < 0xF0) {
        *len = 3;
        return (uint32_t)(s[0] & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
    }
    *len = 4;
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 | (uint32_t)(s[2] & 0x3F) << 6 |
           (s[3] & 0x3F);
}

/* uni_prev: the start of the character that ends at p[at]; at > 0, valid UTF-8. */
static inline size_t uni_prev(const char *p, size_t at) {
    do
        at--;
    while (((uint8_t)p[at] & 0xC0) == 0x80);
    return at;
}

enum uni_step { UNI_VALID, UNI_INVALID, UNI_CUT };
/* uni_step: looks at the sequence at the start of p[0 .. n), n > 0. UNI_VALID: a character of *len
 * bytes. UNI_INVALID: *len bytes that one U+FFFD stands for (the maximal subpart of Unicode 3.9, as
 * Python and Rust replace). UNI_CUT: all n bytes begin a character that more bytes could complete. */
enum uni_step uni_step(const char *p, size_t n, size_t *len);

/* uni_valid_n: the length of the longest prefix that is valid UTF-8. */
size_t uni_valid_n(const char *p, size_t n);

#endif
