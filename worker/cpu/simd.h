/* simd.h: eight floats at a time. For files named *_avx2.c only, which run after a check of the processor.
 *
 * Every function here treats each lane alone, so a value's bits do not depend on its neighbours.
 */
#ifndef WEIR_WORKER_CPU_SIMD_H
#define WEIR_WORKER_CPU_SIMD_H

#include <immintrin.h>

#include "worker/backend.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256 v_set(float x) {
    return _mm256_set1_ps(x);
}

/* v_sum, v_max: over the lanes, always in the same order. */
INLINE float v_sum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE float v_max(__m256 v) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* v_mask: the first n lanes, n in 0..8. */
INLINE __m256i v_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* v_copy: n floats. The C library's copy may run fifty times slower: before glibc 2.39 it takes `rep movsb` from
 * some 3 KiB on, which AMD's cores do badly where the two places lie differently within 64 bytes. */
INLINE void v_copy(float *dst, const float *src, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_loadu_ps(src + i));
    __m256i mask = v_mask((int)(n - i));
    if (i < n)
        _mm256_maskstore_ps(dst + i, mask, _mm256_maskload_ps(src + i, mask));
}

/* v_exp: e^x, about 1 ulp; 0 below -87.3, e^88.3 above it, NaN stays. ln 2 in two parts, then Taylor terms up
 * to the seventh on [-0.347, 0.347] (remainder below 2^-27). */
INLINE __m256 v_exp(__m256 x) {
    __m256 lowest = v_set(-87.3f);
    __m256 tiny = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    x = _mm256_min_ps(v_set(88.3f), _mm256_max_ps(lowest, x)); /* the second operand is kept if it is NaN */
    __m256 n =
        _mm256_round_ps(_mm256_mul_ps(x, v_set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 f = _mm256_fmadd_ps(n, v_set(-0.693359375f), x);
    f = _mm256_fmadd_ps(n, v_set(2.12194440e-4f), f);
    __m256 p = v_set(1.98412698e-4f);
    p = _mm256_fmadd_ps(p, f, v_set(1.38888889e-3f));
    p = _mm256_fmadd_ps(p, f, v_set(8.33333333e-3f));
    p = _mm256_fmadd_ps(p, f, v_set(4.16666667e-2f));
    p = _mm256_fmadd_ps(p, f, v_set(1.66666667e-1f));
    p = _mm256_fmadd_ps(p, f, v_set(0.5f));
    p = _mm256_fmadd_ps(p, f, v_set(1.0f));
    p = _mm256_fmadd_ps(p, f, v_set(1.0f));
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(e)));
}

/* v_sigmoid: 1 / (1 + e^-x). */
INLINE __m256 v_sigmoid(__m256 x) {
    __m256 e = v_exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_div_ps(v_set(1.0f), _mm256_add_ps(v_set(1.0f), e));
}

/* v_tanh: for |x| < 0.625 its continued fraction x / (1 + x2 / (3 + x2 / (5 + x2 / (7 + x2 / 9)))), elsewhere
 * 1 - 2 / (e^2|x| + 1) with x's sign. */
INLINE __m256 v_tanh(__m256 x) {
    __m256 sign = v_set(-0.0f), a = _mm256_andnot_ps(sign, x), x2 = _mm256_mul_ps(x, x);
    __m256 c = _mm256_add_ps(v_set(7.0f), _mm256_div_ps(x2, v_set(9.0f)));
    c = _mm256_add_ps(v_set(5.0f), _mm256_div_ps(x2, c));
    c = _mm256_add_ps(v_set(3.0f), _mm256_div_ps(x2, c));
    c = _mm256_add_ps(v_set(1.0f), _mm256_div_ps(x2, c));
    __m256 small = _mm256_div_ps(x, c);
    __m256 e = v_exp(_mm256_add_ps(a, a));
    __m256 t = _mm256_sub_ps(v_set(1.0f), _mm256_div_ps(v_set(2.0f), _mm256_add_ps(e, v_set(1.0f))));
    t = _mm256_or_ps(t, _mm256_and_ps(sign, x));
    return _mm256_blendv_ps(t, small, _mm256_cmp_ps(a, v_set(0.625f), _CMP_LT_OQ));
}

/* v_erf: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: absolute error below 1.5e-7. */
INLINE __m256 v_erf(__m256 x) {
    __m256 sign = v_set(-0.0f), a = _mm256_andnot_ps(sign, x);
    __m256 t = _mm256_div_ps(v_set(1.0f), _mm256_fmadd_ps(v_set(0.3275911f), a, v_set(1.0f)));
    __m256 p = v_set(1.061405429f);
    p = _mm256_fmadd_ps(p, t, v_set(-1.453152027f));
    p = _mm256_fmadd_ps(p, t, v_set(1.421413741f));
    p = _mm256_fmadd_ps(p, t, v_set(-0.284496736f));
    p = _mm256_fmadd_ps(p, t, v_set(0.254829592f));
    p = _mm256_mul_ps(p, t);
    __m256 e = v_exp(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(a, a)));
    __m256 r = _mm256_fnmadd_ps(p, e, v_set(1.0f));
    return _mm256_or_ps(r, _mm256_and_ps(sign, x));
}

/* v_act: an activation of backend.h. */
INLINE __m256 v_act(enum act_kind kind, __m256 x) {
    switch (kind) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return _mm256_mul_ps(x, v_sigmoid(x));
    case ACT_GELU:
        return _mm256_mul_ps(_mm256_mul_ps(v_set(0.5f), x),
                             _mm256_add_ps(v_set(1.0f), v_erf(_mm256_mul_ps(x, v_set(0.70710678f)))));
    case ACT_GELU_TANH: {
        __m256 x3 = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
        __m256 t = v_tanh(_mm256_mul_ps(v_set(0.79788456f), _mm256_fmadd_ps(v_set(0.044715f), x3, x)));
        return _mm256_mul_ps(_mm256_mul_ps(v_set(0.5f), x), _mm256_add_ps(v_set(1.0f), t));
    }
    case ACT_RELU:
        return _mm256_max_ps(_mm256_setzero_ps(), x); /* NaN stays */
    case ACT_TANH:
        return v_tanh(x);
    case ACT_QUICK_GELU:
        return _mm256_mul_ps(x, v_sigmoid(_mm256_mul_ps(v_set(1.702f), x)));
    }
    return x;
}

/* panel_load: the 16 columns of one k, widened; lo is places 0..7. See struct be_w. `t` is a constant. */
INLINE void panel_load(enum dtype t, const void *p, __m256 *lo, __m256 *hi) {
    if (t == DT_F32) {
        *lo = _mm256_loadu_ps((const float *)p);
        *hi = _mm256_loadu_ps((const float *)p + 8);
    } else if (t == DT_F16) {
        *lo = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
        *hi = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1));
    } else {
        __m256i v = _mm256_loadu_si256((const __m256i *)p);
        *lo = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
        *hi = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xFFFF0000u)));
    }
}

/* panel_widen: k_n rows of a panel, `t` to f32 [k_n][16] in column order. */
INLINE void panel_widen_as(enum dtype t, const uint8_t *p, uint32_t k_n, float *dst) {
    for (uint32_t k = 0; k < k_n; k++, dst += 16, p += 16 * dtype_bytes(t)) {
        __m256 lo, hi;
        panel_load(t, p, &lo, &hi);
        _mm256_storeu_ps(dst, lo);
        _mm256_storeu_ps(dst + 8, hi);
    }
}

INLINE void panel_widen(enum dtype t, const uint8_t *p, uint32_t k_n, float *dst) {
    if (t == DT_F32)
        panel_widen_as(DT_F32, p, k_n, dst);
    else if (t == DT_F16)
        panel_widen_as(DT_F16, p, k_n, dst);
    else
        panel_widen_as(DT_BF16, p, k_n, dst);
}

#endif
