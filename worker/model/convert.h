/* convert.h: arrays of f32, f16 and bf16 into one another, and weights at random. No state. */
#ifndef WEIR_WORKER_MODEL_CONVERT_H
#define WEIR_WORKER_MODEL_CONVERT_H

#include "worker/backend.h"

/* convert_floats: n values; src may be unaligned for its type. Rounds to nearest, ties to even; what is too
 * large for f16 becomes infinite, as in Hugging Face. Both types are DT_F32, DT_F16 or DT_BF16. */
void convert_floats(void *dst, enum dtype to, const void *src, enum dtype from, size_t n);

/* random_floats: values first .. first + n - 1 of the endless array that `seed` names, uniform in (-limit,
 * limit). Parts of an array made apart fit together. */
void random_floats(void *dst, enum dtype to, uint64_t seed, uint64_t first, size_t n, float limit);

#endif
