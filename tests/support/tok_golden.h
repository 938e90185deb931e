/* tok_golden.h: the tokenizers and strings of tests/golden/tok (made by scripts/goldens/tok.py). */
#ifndef WEIR_TESTS_SUPPORT_TOK_GOLDEN_H
#define WEIR_TESTS_SUPPORT_TOK_GOLDEN_H

#include "common/text/tok.h"

/* golden_file_read: a whole file in new memory, NUL-terminated; ends the process if it cannot be read. */
char *golden_file_read(const char *path, size_t *n);

/* tok_golden: the tokenizer of a family: "gpt2", "llama3" or "qwen2". */
struct tok *tok_golden(const char *family);

/* The strings, one at a time. */
struct golden_strings {
    char *file;
    size_t n_file, at;
    uint32_t n, i;   /* strings in all; index of the next */
    struct buf text; /* the last one read */
};
void golden_strings_open(struct golden_strings *g);
bool golden_strings_next(struct golden_strings *g);
void golden_strings_close(struct golden_strings *g);

#endif
