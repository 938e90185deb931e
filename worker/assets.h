/* assets.h: the files of a model's folder, or of its tokenizer's, that routers get: tokenizer, templates, generation
 * config.
 *
 * Where there is no tokenizer.json, what stands in for it goes instead: tokenizer.model, or vocab.json with
 * merges.txt, or vocab.txt. Read whole, once, before the engine exists; any thread.
 */
#ifndef WEIR_WORKER_ASSETS_H
#define WEIR_WORKER_ASSETS_H

#include "common/text/tok.h"
#include "worker/io.h"

/* assets_read: the generation config from model_dir, all others from dir; appends to v, which has IO_ASSETS_MAX places, *n of them taken; the data is the caller's
 * (free()), on failure too. RC_NOT_FOUND: no tokenizer. */
MUST_USE enum rc assets_read(const char *model_dir, const char *dir, struct io_asset *v, size_t *n, struct err *e);
/* assets_find: by name; NULL: not there. */
const struct io_asset *assets_find(const struct io_asset *v, size_t n, const char *name);
/* assets_tokenizer: those of the tokenizer, borrowed. */
struct tok_files assets_tokenizer(const struct io_asset *v, size_t n);

#endif
