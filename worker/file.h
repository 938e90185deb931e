/* file.h: small files of a model's folder, read whole. */
#ifndef WEIR_WORKER_FILE_H
#define WEIR_WORKER_FILE_H

#include "common/err.h"

/* file_read: DIR/NAME, a regular file of at most limit bytes; *data is the caller's (free()), with a NUL
 * behind its n bytes. RC_NOT_FOUND: there is none; RC_TOO_LARGE, RC_INVALID, RC_IO. */
MUST_USE enum rc file_read(const char *dir, const char *name, size_t limit, char **data, size_t *n,
                           struct err *e);

#endif
