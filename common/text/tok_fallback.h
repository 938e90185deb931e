/* tok_fallback.h: what tokenizer.json would be, from the files a folder has instead. For tok_load.c. */
#ifndef WEIR_COMMON_TEXT_TOK_FALLBACK_H
#define WEIR_COMMON_TEXT_TOK_FALLBACK_H

#include "common/json.h"
#include "common/text/tok.h"

/* tok_fallback: the caller's reference; NULL with e filled if the files are bad or none is there. */
json_t *tok_fallback(const struct tok_files *files, struct err *e);

#endif
