#include "common/text/bytelevel.h"

#include "common/text/uni.h"

uint32_t byte_level_of(uint8_t byte) {
    if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE)
        return byte;
    return byte < 0x21 ? 0x100u + byte : byte == 0xAD ? 0x100 + 67 : 0x100u + 0x21 + (byte - 0x7Fu);
}

/* byte_of: GPT-2 writes each byte as a printable character: those of Latin-1 stand for themselves,
 * the rest, in order, for U+0100 onwards. -1 for a character outside. */
static int byte_of(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7E) || (cp >= 0xA1 && cp <= 0xAC) || (cp >= 0xAE && cp <= 0xFF))
        return (int)cp;
    if (cp < 0x100 || cp >= 0x100 + 68)
        return -1;
    uint32_t k = cp - 0x100; /* the k-th of 00..20, 7F..A0, AD */
    return k < 0x21 ? (int)k : k < 0x43 ? (int)(0x7F + k - 0x21) : 0xAD;
}

size_t byte_level_decode(struct str s, char *out) {
    size_t n = 0;
    for (size_t i = 0, len; i < s.n; i += len) {
        int b = byte_of(uni_decode(s.p + i, &len));
        if (b < 0)
            return SIZE_MAX;
        out[n++] = (char)b;
    }
    return n;
}
