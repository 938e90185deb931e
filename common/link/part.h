/* part.h: private to common/link: BlobParts into blobs, with bounded memory.
 *
 * At most PART_OPEN_MAX blobs are open at a time, each at most bytes_max, together at most twice that; memory
 * grows with the bytes that came, not with those announced. A blob that gets no part for PART_IDLE_NS breaks
 * the protocol.
 */
#ifndef WEIR_COMMON_LINK_PART_H
#define WEIR_COMMON_LINK_PART_H

#include <openssl/evp.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/err.h"
#include "proto/weir.pb-c.h"

enum { PART_OPEN_MAX = 8 };
#define PART_IDLE_NS (30 * NS_PER_S)

struct part_open {
    uint64_t blob, total_bytes;
    Weir__BlobPart__Kind kind;
    uint64_t last_ns; /* when the latest part came */
    struct buf data;
    EVP_MD_CTX *sha; /* TENSOR */
};
struct parts {
    struct part_open open[PART_OPEN_MAX];
    size_t n_open;
    uint64_t announced_bytes; /* sum over open */
    size_t bytes_max;
};
struct part_done {
    Weir__BlobPart__Kind kind;
    struct buf data; /* the caller's: buf_fini or buf_take */
    uint8_t digest[32];
};

void parts_init(struct parts *p, size_t bytes_max);
void parts_fini(struct parts *p);
/* parts_add: *complete: the last part came, and *done is filled. RC_PROTO: the part does not fit. */
MUST_USE enum rc parts_add(struct parts *p, const Weir__BlobPart *part, uint64_t now_ns,
                           struct part_done *done, bool *complete, struct err *e);
/* parts_check: RC_PROTO if a blob has been left open for too long. */
MUST_USE enum rc parts_check(const struct parts *p, uint64_t now_ns, struct err *e);

#endif
