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
extern const uint32_t uni_decomp_pool[3404];
/* Primary composites: first + second = joined; a hash table; first 0 is an empty slot. */
struct uni_comp_entry {
    uint32_t first, second, joined;
};
extern const struct uni_comp_entry uni_comp[UNI_N_COMP];

#endif
