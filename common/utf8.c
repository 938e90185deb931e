#include "common/utf8.h"

/* Second-byte ranges by lead byte (Unicode 15, table 3-7): they exclude overlong forms, surrogates and
 * everything above U+10FFFF, so the bytes behind need only be continuation bytes. */
static bool lead_range(unsigned char lead, size_t *need, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
        *need = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        *need = 3;
        if (lead == 0xE0)
            *lo = 0xA0;
        if (lead == 0xED)
            *hi = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        *need = 4;
        if (lead == 0xF0)
            *lo = 0x90;
        if (lead == 0xF4)
            *hi = 0x8F;
    } else {
        return false;
    }
    return true;
}

int32_t utf8_decode(const char *p, size_t n, size_t *len) {
    const unsigned char *s = (const unsigned char *)p;
    CHECK(n > 0);
    if (s[0] < 0x80) {
        *len = 1;
        return s[0];
    }
    size_t need;
    unsigned char lo, hi;
    if (!lead_range(s[0], &need, &lo, &hi)) {
        *len = 1;
        return -1;
    }
    uint32_t cp = s[0] & (0x7Fu >> need);
    size_t i = 1;
    for (; i < need; i++) {
        if (i >= n || s[i] < lo || s[i] > hi)
            break;
        cp = cp << 6 | (s[i] & 0x3Fu);
        lo = 0x80;
        hi = 0xBF;
    }
    *len = i;
    return i == need ? (int32_t)cp : -1;
}

size_t utf8_encode(uint32_t cp, char out[4]) {
    CHECK(cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF));
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool utf8_valid(const char *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= sizeof w) {
            memcpy(&w, p + i, sizeof w);
            if (!(w & 0x8080808080808080ull)) {
                i += sizeof w;
                continue;
            }
        }
        size_t len;
        if (utf8_decode(p + i, n - i, &len) < 0)
            return false;
        i += len;
    }
    return true;
}

size_t utf8_count(const char *p, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)p[i] & 0xC0) != 0x80;
    return count;
}

size_t utf8_cut(const char *p, size_t n, size_t max) {
    if (n <= max)
        return n;
    /* A well-formed character has at most three continuation bytes; in other text any place will do. */
    for (size_t m = max; m > 0 && max - m < 4; m--)
        if (((unsigned char)p[m] & 0xC0) != 0x80)
            return m;
    return max < 4 ? 0 : max;
}
