/* unicode_tab.h: Unicode facts as tables; read through common/text/uni.h. Written by
 * scripts/gen_unicode.py from tokenizers 0.23.3; do not edit. */
#ifndef WEIR_COMMON_TEXT_UNICODE_TAB_H
#define WEIR_COMMON_TEXT_UNICODE_TAB_H

#include <stdint.h>

/* Four bits a code point, two code points a byte (the even one low), 128 code points a block. */
extern const uint16_t uni_class_index[8704];
extern const uint8_t uni_class_block[14400];
/* Canonical combining class, 128 code points a block. */
extern const uint16_t uni_ccc_index[8704];
extern const uint8_t uni_ccc_block[9728];
/* Full canonical decompositions but Hangul: a hash table; cp 0 is an empty slot. */
enum { UNI_N_DECOMP = 4096, UNI_DECOMP_SHIFT = 20, UNI_N_COMP = 2048, UNI_COMP_SHIFT = 21 };
struct uni_decomp_entry {
    uint32_t cp;
    uint16_t at, n; /* uni_decomp_pool[at .. at + n) */
};
extern const struct uni_decomp_entry uni_decomp[UNI_N_DECOMP];
extern const uint32_t uni_decomp_pool[9003];
/* Primary composites: first + second = joined; a hash table; first 0 is an empty slot. */
struct uni_comp_entry {
    uint32_t first, second, joined;
};
extern const struct uni_comp_entry uni_comp[UNI_N_COMP];
/* Full compatibility decompositions where they differ from the canonical ones; the same form. */
enum { UNI_N_COMPAT = 8192, UNI_COMPAT_SHIFT = 19, UNI_N_LOWER = 4096, UNI_LOWER_SHIFT = 20 };
extern const struct uni_decomp_entry uni_compat[UNI_N_COMPAT];
/* Lower case where it differs: one or two characters. */
struct uni_lower_entry {
    uint32_t cp, first, second;
};
extern const struct uni_lower_entry uni_lower[UNI_N_LOWER];
/* UNI_IS_* in the low byte, enum uni_grapheme in the high one; 128 code points a block. */
extern const uint16_t uni_props_index[8704];
extern const uint16_t uni_props_block[30848];
enum uni_grapheme {
    UNI_GRAPHEME_OTHER,
    UNI_GRAPHEME_CONTROL,
    UNI_GRAPHEME_EXTEND,
    UNI_GRAPHEME_EXTEND_INDIC,
    UNI_GRAPHEME_LINKER,
    UNI_GRAPHEME_ZWJ,
    UNI_GRAPHEME_SPACING,
    UNI_GRAPHEME_PREPEND,
    UNI_GRAPHEME_REGIONAL,
    UNI_GRAPHEME_L,
    UNI_GRAPHEME_V,
    UNI_GRAPHEME_T,
    UNI_GRAPHEME_LV,
    UNI_GRAPHEME_LVT,
    UNI_GRAPHEME_PICTURE,
    UNI_GRAPHEME_CONSONANT,
};

#endif
