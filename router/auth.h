/* auth.h: API keys (api.md 2.5).
 *
 * Keys are kept as SHA-256 digests. A presented key is hashed and compared with every one of them, in
 * constant time and to the end, so that the time taken tells nothing of any key but how many there are.
 * Nothing here logs or returns a key or a part of one.
 *
 * Threads: auth_allows from any, also while auth_reload runs on another.
 */
#ifndef WEIR_ROUTER_AUTH_H
#define WEIR_ROUTER_AUTH_H

#include "common/conf.h"

enum {
    AUTH_KEY_BYTES_MAX = 4096,
    AUTH_KEYS_MAX = 10000,
    AUTH_FILE_BYTES_MAX = 4 << 20,
};

struct auth;

/* auth_new: the keys of a list and of a file (NULL: none): one per line; blank lines and lines that begin
 * with # are skipped. Neither: RC_OK and *out NULL, which auth_allows takes for everybody. keys and file must
 * stay for auth_reload. RC_INVALID: no key at all where some were announced, a key that no header can carry
 * (bytes outside 0x21 to 0x7E), too many, or an unreadable file; the message names the flag and the line. */
MUST_USE enum rc auth_new(struct auth **out, const struct conf_list *keys, const char *file, struct err *e);
void auth_free(struct auth *a);
/* auth_reload: reads the file again; after an error the keys stay as they were. *n: how many there are. */
MUST_USE enum rc auth_reload(struct auth *a, size_t *n, struct err *e);

/* auth_allows: value is that of an Authorization header: "Bearer KEY", the scheme in any case. */
bool auth_allows(struct auth *a, struct str value);
/* auth_open: whether a path asks for no key. */
bool auth_open(struct str path, bool metrics_too);

#endif
