/* nfc.h: Unicode normalisation forms (UAX 15), as the tokenizers library computes them.
 *
 * Linear time for every input, long runs of combining marks included.
 */
#ifndef WEIR_COMMON_TEXT_NFC_H
#define WEIR_COMMON_TEXT_NFC_H

#include "common/buf.h"

enum nf_form { NF_C, NF_D, NF_KC, NF_KD };

/* nf_unchanged_n: the length of a prefix of valid UTF-8 that the form leaves as it is whatever follows;
 * n if all of it does. */
size_t nf_unchanged_n(enum nf_form form, const char *p, size_t n);

/* nf_map: where positions of the source lie in the result: sorted source positions in, the result's
 * out. A position inside a stretch that was rewritten as a whole maps to the end of the stretch's
 * result when round_up, else to its begin. */
struct nf_map {
    size_t *at; /* in place: source position, then result's position */
    size_t n;
    const bool *round_up; /* [n] */
    size_t next;          /* the first that is still a source position */
};
/* nf_map_same: source [begin, end) went over unchanged, to out_begin. map may be NULL, as below. */
void nf_map_same(struct nf_map *map, size_t begin, size_t end, size_t out_begin);
/* nf_map_changed: source [begin, end) became [out_begin, out_end). */
void nf_map_changed(struct nf_map *map, size_t begin, size_t end, size_t out_begin, size_t out_end);
/* nf_map_end: the source ends at n, the result at out_n. */
void nf_map_end(struct nf_map *map, size_t n, size_t out_n);

/* nf: appends the normal form of n bytes of valid UTF-8 to out. map may be NULL. */
void nf(enum nf_form form, const char *p, size_t n, struct buf *out, struct nf_map *map);

/* The steps behind it, for normalisers that do more in between. A stretch is a run of characters that is
 * normalised on its own. */
struct nf_stretch {
    uint32_t *v; /* [n] code points */
    uint32_t *tmp;
    size_t n, cap;
};
void nf_stretch_fini(struct nf_stretch *s);
/* nf_push: appends a character; nf_push_decomposed: its full decomposition. */
void nf_push(struct nf_stretch *s, uint32_t cp);
void nf_push_decomposed(struct nf_stretch *s, uint32_t cp, bool compat);
/* nf_order: puts marks in canonical order. */
void nf_order(struct nf_stretch *s);

#endif
