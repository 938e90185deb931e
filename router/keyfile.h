/* keyfile.h: the lines of --api-key-file. Pure.
 *
 * A line is a key, and behind it, with blanks between, what the key may have:
 *
 *     sk-0123456789abcdef
 *     sk-fedcba9876543210  rpm=60 tpm=100000
 *
 * rpm: requests a minute, tpm: tokens a minute, prompt and output; from 1 to QUOTA_MAX, each once at most.
 * Blank lines, and lines that begin with #, say nothing.
 */
#ifndef WEIR_ROUTER_KEYFILE_H
#define WEIR_ROUTER_KEYFILE_H

#include "common/err.h"
#include "router/quota.h"

enum { KEYFILE_KEY_BYTES_MAX = 4096 };

/* keyfile_is_key: 1 to KEYFILE_KEY_BYTES_MAX bytes of 0x21 to 0x7E: what a header can carry. */
bool keyfile_is_key(struct str s);
/* keyfile_line: *key points into the line; empty: the line says nothing. RC_INVALID: the message does not
 * repeat the line, which may be a secret. */
MUST_USE enum rc keyfile_line(struct str line, struct str *key, struct quota_limits *limits, struct err *e);

#endif
