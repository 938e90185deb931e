/* utf8.h: decoding and checking UTF-8. No state. */
#ifndef WEIR_COMMON_UTF8_H
#define WEIR_COMMON_UTF8_H

#include "common/base.h"

#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* utf8_decode: the code point at p (n > 0 bytes left) and its length. An invalid sequence gives -1 and the
 * length of its maximal subpart (Unicode 3.9, as Python and Rust replace), at least 1. */
int32_t utf8_decode(const char *p, size_t n, size_t *len);
/* utf8_encode: 1 to 4 bytes to out. cp must be a scalar value. */
size_t utf8_encode(uint32_t cp, char out[4]);
/* utf8_valid: whether all n bytes are well-formed. Fast on ASCII. */
bool utf8_valid(const char *p, size_t n);
/* utf8_count: code points of well-formed text. */
size_t utf8_count(const char *p, size_t n);
/* utf8_cut: the largest m <= max at which text of n bytes may be cut. */
size_t utf8_cut(const char *p, size_t n, size_t max);

#endif
