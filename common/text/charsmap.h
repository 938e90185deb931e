/* charsmap.h: SentencePiece's precompiled character map.
 *
 * The blob is a little-endian u32 (bytes of the trie), a double-array trie of u32 units in the layout of
 * darts-clone, and the replacements, each ended by a NUL; a key's value is the offset of its replacement.
 * As Hugging Face applies it: each grapheme cluster of less than six bytes that starts with a key becomes
 * what its shortest such key maps to; else each of its characters does. Immutable; any thread.
 */
#ifndef WEIR_COMMON_TEXT_CHARSMAP_H
#define WEIR_COMMON_TEXT_CHARSMAP_H

#include "common/err.h"
#include "common/text/nfc.h"

struct charsmap {
    uint32_t *units; /* [n_units] */
    size_t n_units;
    char *texts; /* [n_texts], NUL at the end */
    size_t n_texts;
    bool ascii_same[128]; /* an ASCII character that no key starts with */
};

/* charsmap_init: copies the blob; RC_INVALID with why in e->msg if it is not one. */
MUST_USE enum rc charsmap_init(struct charsmap *m, struct str blob, struct err *e);
void charsmap_fini(struct charsmap *m);
/* charsmap_apply: appends the mapped text of n bytes of valid UTF-8. map may be NULL. */
void charsmap_apply(const struct charsmap *m, const char *p, size_t n, struct buf *out, struct nf_map *map);
/* charsmap_front: how many bytes of the mapped text count as made of the first characters, of front bytes. */
size_t charsmap_front(const struct charsmap *m, const char *p, size_t n, size_t front);

#endif
