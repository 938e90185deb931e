/* split.h: the split patterns of byte-level tokenizers, written by hand.
 *
 * A splitter cuts text into pre-tokens from left to right; the pieces cover all of it. Pure
 * functions, linear time. Text is valid UTF-8.
 */
#ifndef WEIR_COMMON_TEXT_SPLIT_H
#define WEIR_COMMON_TEXT_SPLIT_H

#include "common/base.h"

/* The end of the pre-token that starts at p[at], at < n. */
typedef size_t split_fn(const char *p, size_t at, size_t n);

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
split_fn split_gpt2;
/* Llama 3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+   (one line) */
split_fn split_llama3;
/* Qwen2: the same with \p{N} for \p{N}{1,3}. */
split_fn split_qwen2;

extern const char split_pattern_qwen2[]; /* as files spell it */

/* split_by_pattern: the splitter of a regular expression, NULL if there is none. */
split_fn *split_by_pattern(struct str pattern);

#endif
