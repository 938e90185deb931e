#include "common/text/uni.h"

enum uni_step uni_step(const char *p, size_t n, size_t *len) {
    const uint8_t *s = (const uint8_t *)p;
    CHECK(n > 0);
    *len = 1;
    if (s[0] < 0x80)
        return UNI_VALID;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return UNI_INVALID;
    size_t need = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    /* The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF. */
    uint8_t low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < need; i++) {
        *len = i;
        if (i == n)
            return UNI_CUT;
        if (s[i] < low || s[i] > high)
            return UNI_INVALID;
        low = 0x80;
        high = 0xBF;
    }
    *len = need;
    return UNI_VALID;
}

size_t uni_valid_n(const char *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        while (n - i >= sizeof eight) {
            memcpy(&eight, p + i, sizeof eight);
            if (eight & 0x8080808080808080u)
                break;
            i += sizeof eight;
        }
        /* One character at a time until the text is ASCII again. */
        while (i < n) {
            size_t len;
            bool ascii = (uint8_t)p[i] < 0x80;
            if (uni_step(p + i, n - i, &len) != UNI_VALID)
                return i;
            i += len;
            if (ascii && n - i >= sizeof eight && (uint8_t)p[i] < 0x80)
                break;
        }
    }
    return i;
}
