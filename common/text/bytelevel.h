/* bytelevel.h: GPT-2's alphabet, in which each byte is a printable character. Pure functions. */
#ifndef WEIR_COMMON_TEXT_BYTELEVEL_H
#define WEIR_COMMON_TEXT_BYTELEVEL_H

#include "common/base.h"

/* byte_level_of: the character of a byte. */
uint32_t byte_level_of(uint8_t byte);
/* byte_level_decode: a piece in the byte-level alphabet to its bytes (out has room for s.n); SIZE_MAX
 * if a character is not of that alphabet. */
size_t byte_level_decode(struct str s, char *out);

#endif
