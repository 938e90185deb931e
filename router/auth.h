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
#include "router/keyfile.h"

enum {
    AUTH_KEY_BYTES_MAX = KEYFILE_KEY_BYTES_MAX,
    AUTH_KEYS_MAX = 10000,
    AUTH_FILE_BYTES_MAX = 4 << 20,
};

struct auth;
/* auth_key: who has shown a key. */
struct auth_key {
    struct id128
        tenant; /* a digest of the key's digest: the same at every router, and no way back to the key */
    struct quota *quota; /* held; NULL: the key has no limits */
};

/* auth_new: the keys of a list and of a file (NULL: none): keyfile.h has its lines. Neither: RC_OK and *out
 * NULL, which auth_allows takes for everybody. keys and file must stay for auth_reload. A key that comes more
 * than once is one key, with the lowest limits given for it. RC_INVALID: no key at all where some were
 * announced, a key that no header can carry (bytes outside 0x21 to 0x7E), too many, or an unreadable file;
 * the message names the flag and the line. */
MUST_USE enum rc auth_new(struct auth **out, const struct conf_list *keys, const char *file, struct err *e);
void auth_free(struct auth *a);
/* auth_reload: reads the file again; after an error the keys stay as they were. What a key has left of its
 * limits it keeps. *n: how many keys there are. */
MUST_USE enum rc auth_reload(struct auth *a, size_t *n, struct err *e);
/* auth_changed: the file is another one than the one read last, by time, size and identity. One thread. */
bool auth_changed(struct auth *a);
/* auth_count: how many keys there are. */
size_t auth_count(struct auth *a);

/* auth_allows: value is that of an Authorization header: "Bearer KEY", the scheme in any case. *who (which
 * may be NULL) is filled if so. */
bool auth_allows(struct auth *a, struct str value, struct auth_key *who);
/* auth_open: whether a path asks for no key. */
bool auth_open(struct str path, bool metrics_too);

#endif
