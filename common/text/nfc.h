/* nfc.h: Unicode normalisation form C (UAX 15), as the tokenizers library does it.
 *
 * Linear time for every input, long runs of combining marks included.
 */
#ifndef WEIR_COMMON_TEXT_NFC_H
#define WEIR_COMMON_TEXT_NFC_H

#include "common/buf.h"

/* nfc_unchanged_n: the length of a prefix of valid UTF-8 that NFC leaves as it is whatever follows;
 * n if all of it does. */
size_t nfc_unchanged_n(const char *p, size_t n);

/* nfc_map: where positions of the source lie in the result: sorted source positions in, the result's
 * out. A position inside a stretch that was rewritten as a whole maps to the end of the stretch's
 * result when round_up, else to its begin. */
struct nfc_map {
    size_t *at; /* in place: source position, then result's position */
    size_t n;
    const bool *round_up; /* [n] */
};

/* nfc: appends the normal form of n bytes of valid UTF-8 to out. map may be NULL. */
void nfc(const char *p, size_t n, struct buf *out, struct nfc_map *map);

#endif
