#include "worker/model/convert.h"

#include <stdlib.h>

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint16_t to_bf16(float x) {
    uint32_t u = bits_of(x);
    if ((u & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(u >> 16 | 0x40); /* a NaN whose payload may be cut must stay one */
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

/* from_f16: the exponent is rebased by a multiplication, which handles subnormals too: an f16 shifted into
 * f32's fields is 2^-112 of its value. */
static float from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7FFF) << 13;
    if (rest >= 0x0F800000)
        return of_bits(sign | 0x7F800000 | (rest & 0x007FFFFF)); /* infinity, NaN */
    return of_bits(sign | bits_of(of_bits(rest) * 0x1p112f));
}

static uint16_t to_f16(float x) {
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000)
        return (uint16_t)(sign | 0x7E00);
    if (a >= 0x477FF000) /* 65520, half a step above the largest */
        return (uint16_t)(sign | 0x7C00);
    if (a < 0x38800000) /* subnormal in f16: let the addition round to multiples of 2^-24 */
        return (uint16_t)(sign | (bits_of(of_bits(a) + 0.5f) - bits_of(0.5f)));
    a -= 0x38000000; /* rebased exponent */
    return (uint16_t)(sign | (a + 0xFFF + (a >> 13 & 1)) >> 13);
}

static void widen(float *dst, const uint8_t *src, enum dtype from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, sizeof h);
        dst[i] = from == DT_BF16 ? of_bits((uint32_t)h << 16) : from_f16(h);
    }
}

static void narrow(uint16_t *dst, enum dtype to, const float *src, size_t n) {
    for (size_t i = 0; i < n; i++)
        dst[i] = to == DT_BF16 ? to_bf16(src[i]) : to_f16(src[i]);
}

void convert_floats(void *dst, enum dtype to, const void *src, enum dtype from, size_t n) {
    CHECK(to == DT_F32 || to == DT_F16 || to == DT_BF16);
    CHECK(from == DT_F32 || from == DT_F16 || from == DT_BF16);
    if (to == from) {
        memcpy(dst, src, n * dtype_bytes(to));
        return;
    }
    float part[1024]; /* f16 to bf16 and back go by f32, in pieces that stay in the cache */
    for (size_t i = 0; i < n; i += ARRAY_LEN(part)) {
        size_t m = MIN(n - i, ARRAY_LEN(part));
        const uint8_t *s = (const uint8_t *)src + i * dtype_bytes(from);
        float *wide = to == DT_F32 ? (float *)dst + i : part;
        if (from == DT_F32)
            memcpy(wide, s, m * sizeof *wide);
        else
            widen(wide, s, from, m);
        if (to != DT_F32)
            narrow((uint16_t *)dst + i, to, wide, m);
    }
}

/* mix: SplitMix64's output function (Steele, Lea, Flood, 2014). */
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

/* word_at: the random bits of values 4 i to 4 i + 3. */
static uint64_t word_at(uint64_t seed, uint64_t i) {
    return mix(seed + (i + 1) * 0x9E3779B97F4A7C15ull);
}

/* pick: copies the entries that the values first .. first + n - 1 name. size: bytes of an entry, 2 or 4. */
static void pick(uint8_t *dst, const uint8_t *table, size_t size, uint64_t seed, uint64_t first, size_t n) {
    uint64_t word = word_at(seed, first / 4) >> (first % 4 * 16);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (first + i) % 4 == 0)
            word = word_at(seed, (first + i) / 4);
        memcpy(dst + i * size, table + (word & 0xFFFF) * size, size);
        word >>= 16;
    }
}

/* pick_words: as pick, four 2-byte values at a time, n and first being multiples of 4: most of --load-format
 * dummy. */
static void pick_words(uint16_t *dst, const uint16_t *table, uint64_t seed, uint64_t first, size_t n) {
    for (size_t i = 0; i < n; i += 4) {
        uint64_t word = word_at(seed, (first + i) / 4);
        uint64_t out = table[word & 0xFFFF] | (uint64_t)table[word >> 16 & 0xFFFF] << 16 |
                       (uint64_t)table[word >> 32 & 0xFFFF] << 32 | (uint64_t)table[word >> 48] << 48;
        memcpy(dst + i, &out, sizeof out);
    }
}

void random_floats(void *dst, enum dtype to, uint64_t seed, uint64_t first, size_t n, float limit) {
    enum { N = 1 << 16 };
    /* 16 random bits pick a value: a table makes every type as fast as a copy. */
    size_t size = dtype_bytes(to);
    float *exact = xmalloc(N * sizeof *exact);
    void *table = xmalloc(N * size);
    for (uint32_t i = 0; i < N; i++)
        exact[i] = limit * (((float)i + 0.5f) / (N / 2) - 1.0f);
    convert_floats(table, to, exact, DT_F32, N);
    size_t n_words = size == 2 && first % 4 == 0 ? n / 4 * 4 : 0;
    pick_words(dst, table, seed, first, n_words);
    pick((uint8_t *)dst + n_words * size, table, size, seed, first + n_words, n - n_words);
    free(exact);
    free(table);
}
