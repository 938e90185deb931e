/* convert.h: 16-bit floats to and from f32, one at a time, in plain C. Rounding is to nearest even; results
 * equal those of F16C and of a bf16 unit, NaN payloads aside. */
#ifndef WEIR_WORKER_CPU_CONVERT_H
#define WEIR_WORKER_CPU_CONVERT_H

#include "worker/backend.h"

static inline uint32_t f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float f32_of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float f32_of_bf16(uint16_t h) {
    return f32_of_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_of_f32(float x) {
    uint32_t u = f32_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(u >> 16 | 0x40); /* stays a NaN */
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

static inline float f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3FF;
    if (e == 31)
        return f32_of_bits(sign | 0x7F800000u | m << 13 | (m ? 0x400000u : 0));
    if (e == 0) /* m * 2^-24 is exact */
        return f32_of_bits(sign | f32_bits((float)m * 0x1p-24f));
    return f32_of_bits(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t f16_of_f32(float x) {
    uint32_t u = f32_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00 | (a >> 13 & 0x3FF));
    if (a >= 0x477FF000u) /* 65520 and more round to infinity */
        return (uint16_t)(sign | 0x7C00);
    if (a < 0x38800000u) { /* below 2^-14: a multiple of 2^-24; adding 0.5 rounds to one */
        float r = f32_of_bits(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3F000000u));
    }
    uint32_t r = a - 0x38000000u;
    return (uint16_t)(sign | (r + 0xFFF + (r >> 13 & 1)) >> 13);
}

/* e4m3: no infinities, one NaN. What is too large becomes the largest, 448. */
static inline float f32_of_f8(uint8_t u) {
    uint32_t sign = (uint32_t)(u & 0x80) << 24, e = u >> 3 & 15, m = u & 7;
    if ((u & 0x7F) == 0x7F)
        return f32_of_bits(sign | 0x7FC00000u);
    if (e == 0) /* m * 2^-9 is exact */
        return f32_of_bits(sign | f32_bits((float)m * 0x1p-9f));
    return f32_of_bits(sign | (e + 120) << 23 | m << 20);
}

static inline uint8_t f8_of_f32(float x) {
    uint32_t u = f32_bits(x), sign = u >> 24 & 0x80, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u)
        return (uint8_t)(sign | 0x7F);
    if (a >= 0x43E00000u)
        return (uint8_t)(sign | 0x7E);
    if (a < 0x3C800000u) { /* below 2^-6: a multiple of 2^-9; adding 2^14 rounds to one */
        float r = f32_of_bits(a) + 0x1p14f;
        return (uint8_t)(sign | (f32_bits(r) - 0x46800000u));
    }
    uint32_t r = a - 0x3C000000u;
    return (uint8_t)(sign | (r + 0x7FFFF + (r >> 20 & 1)) >> 20);
}

/* f32_load: element i of an array of type t, which is f32, f16, bf16 or, for the reference's caches, e4m3. */
static inline float f32_load(const void *p, enum dtype t, size_t i) {
    switch (t) {
    case DT_F32:
        return ((const float *)p)[i];
    case DT_F16:
        return f32_of_f16(((const uint16_t *)p)[i]);
    case DT_F8E4M3:
        return f32_of_f8(((const uint8_t *)p)[i]);
    default:
        return f32_of_bf16(((const uint16_t *)p)[i]);
    }
}

static inline void f32_store(void *p, enum dtype t, size_t i, float x) {
    switch (t) {
    case DT_F32:
        ((float *)p)[i] = x;
        break;
    case DT_F16:
        ((uint16_t *)p)[i] = f16_of_f32(x);
        break;
    case DT_F8E4M3:
        ((uint8_t *)p)[i] = f8_of_f32(x);
        break;
    default:
        ((uint16_t *)p)[i] = bf16_of_f32(x);
        break;
    }
}

/* is_float_type: one of the three types that the CPU computes from. */
static inline bool is_float_type(enum dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

#endif
