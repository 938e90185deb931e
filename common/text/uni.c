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

size_t uni_lower_of(uint32_t cp, uint32_t out[2]) {
    out[0] = cp;
    if (!(uni_props(cp) & UNI_HAS_LOWER))
        return 1;
    uint32_t h = (cp * 2654435761u) >> UNI_LOWER_SHIFT;
    while (uni_lower[h].cp != cp)
        h = (h + 1) % UNI_N_LOWER;
    out[0] = uni_lower[h].first;
    out[1] = uni_lower[h].second;
    return out[1] ? 2 : 1;
}

/* ---- grapheme clusters ---- */

static enum uni_grapheme grapheme_of(uint32_t cp) {
    return (enum uni_grapheme)(uni_props(cp) >> UNI_GRAPHEME_SHIFT);
}

static bool is_extend(enum uni_grapheme g) {
    return g == UNI_GRAPHEME_EXTEND || g == UNI_GRAPHEME_EXTEND_INDIC || g == UNI_GRAPHEME_LINKER ||
           g == UNI_GRAPHEME_ZWJ;
}

/* What the characters since the cluster's start amount to, for the rules that look further back. */
struct cluster {
    enum uni_grapheme last;
    bool odd_regional; /* an odd number of regional indicators ends it */
    bool picture;      /* Extended_Pictographic Extend* */
    bool picture_zwj;  /* ... ZWJ */
    bool consonant;    /* consonant [extend linker]* */
    bool linked;       /* ... with a linker among them */
};

static void cluster_add(struct cluster *c, enum uni_grapheme g) {
    c->odd_regional = g == UNI_GRAPHEME_REGIONAL && !c->odd_regional;
    c->picture_zwj = g == UNI_GRAPHEME_ZWJ && c->picture;
    c->picture = g == UNI_GRAPHEME_PICTURE || (c->picture && is_extend(g) && g != UNI_GRAPHEME_ZWJ);
    bool indic = g == UNI_GRAPHEME_EXTEND_INDIC || g == UNI_GRAPHEME_LINKER || g == UNI_GRAPHEME_ZWJ;
    c->linked = c->consonant && indic && (c->linked || g == UNI_GRAPHEME_LINKER);
    c->consonant = g == UNI_GRAPHEME_CONSONANT || (c->consonant && indic);
    c->last = g;
}

/* joins: rules GB6 to GB13 of UAX 29: whether g belongs to the cluster before it. */
static bool joins(const struct cluster *c, enum uni_grapheme g) {
    enum uni_grapheme a = c->last;
    if (a == UNI_GRAPHEME_CONTROL || g == UNI_GRAPHEME_CONTROL)
        return false;
    if (is_extend(g) || g == UNI_GRAPHEME_SPACING || a == UNI_GRAPHEME_PREPEND)
        return true;
    if (a == UNI_GRAPHEME_L &&
        (g == UNI_GRAPHEME_L || g == UNI_GRAPHEME_V || g == UNI_GRAPHEME_LV || g == UNI_GRAPHEME_LVT))
        return true;
    if ((a == UNI_GRAPHEME_LV || a == UNI_GRAPHEME_V) && (g == UNI_GRAPHEME_V || g == UNI_GRAPHEME_T))
        return true;
    if ((a == UNI_GRAPHEME_LVT || a == UNI_GRAPHEME_T) && g == UNI_GRAPHEME_T)
        return true;
    if (g == UNI_GRAPHEME_CONSONANT && c->linked)
        return true;
    if (g == UNI_GRAPHEME_PICTURE && c->picture_zwj)
        return true;
    return g == UNI_GRAPHEME_REGIONAL && c->odd_regional;
}

size_t uni_grapheme_end(const char *p, size_t at, size_t n) {
    size_t len;
    if (p[at] == '\r' && at + 1 < n && p[at + 1] == '\n')
        return at + 2;
    struct cluster c = {0};
    for (cluster_add(&c, grapheme_of(uni_decode(p + at, &len))); (at += len) < n;) {
        enum uni_grapheme g = grapheme_of(uni_decode(p + at, &len));
        if (!joins(&c, g))
            break;
        cluster_add(&c, g);
    }
    return at;
}
