/* fuzz_kvx: frames of KV transfers, as an end reads them: a head, and the body that it announces. What passes says nothing
 * that its reader cannot use, and is the same when it is written again. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "worker/kvx/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_body(enum kvx_type type, const uint8_t *p, size_t n) {
    struct err e = {0};
    struct buf b = {0};
    struct kvx_hello hello;
    struct kvx_open open;
    struct kvx_grant grant;
    struct kvx_refuse refuse;
    struct kvx_read read;
    struct kvx_data d;
    enum rc rc = RC_PROTO;
    uint32_t sum = 0;
    switch (type) {
    case KVX_HELLO:
        if ((rc = kvx_get_hello(p, n, &hello, &e)) == RC_OK)
            kvx_put_hello(&b, &hello);
        break;
    case KVX_OPEN:
        if ((rc = kvx_get_open(p, n, &open, &e)) == RC_OK) {
            for (uint32_t i = 0; i < open.n_ids; i++)
                sum += kvx_open_id(&open, i);
            kvx_put_open(&b, &open);
        }
        break;
    case KVX_FORGET:
        if ((rc = kvx_get_forget(p, n, &open, &e)) == RC_OK)
            kvx_put_forget(&b, &open);
        break;
    case KVX_GRANT:
        if ((rc = kvx_get_grant(p, n, &grant, &e)) == RC_OK) {
            CHECK(kvx_chunk_blocks(&grant.layout) > 0);
            for (uint32_t g = 0; g < grant.layout.n_groups; g++)
                CHECK(kvx_block_bytes(&grant.layout.group[g], grant.layout.group[g].n_heads) <= KVX_BLOCK_BYTES_MAX);
            kvx_put_grant(&b, &grant);
        }
        break;
    case KVX_REFUSE:
        if ((rc = kvx_get_refuse(p, n, &refuse, &e)) == RC_OK) {
            CHECK(kvx_refusal_words[refuse.why]);
            kvx_put_refuse(&b, &refuse);
        }
        break;
    case KVX_READ:
        if ((rc = kvx_get_read(p, n, &read, &e)) == RC_OK)
            kvx_put_read(&b, &read);
        break;
    case KVX_DATA:
        if ((rc = kvx_get_data(p, n, &d, &e)) == RC_OK)
            kvx_put_data(&b, &d);
        break;
    default:
        return;
    }
    CHECK(rc == RC_OK || e.msg[0]);
    /* Flags are one bit: whatever is not 0 is written as 1; so lengths are compared, and what is exact byte by byte. */
    size_t head = type == KVX_DATA ? KVX_DATA_HEAD_BYTES : n;
    if (rc == RC_OK)
        CHECK(b.len == KVX_HEAD_BYTES + head);
    if (rc == RC_OK && (type == KVX_READ || type == KVX_DATA || type == KVX_GRANT || type == KVX_REFUSE ||
                        type == KVX_FORGET))
        CHECK(memcmp(b.data + KVX_HEAD_BYTES, p, head) == 0);
    buf_fini(&b);
    (void)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct kvx_head head;
    struct err e;
    while (size >= KVX_HEAD_BYTES && kvx_get_head(data, &head, &e) == RC_OK) {
        data += KVX_HEAD_BYTES;
        size -= KVX_HEAD_BYTES;
        if (head.n_bytes > size)
            return 0;
        uint8_t *body = malloc(head.n_bytes + (size_t)1); /* exact, so that a read beyond it is seen */
        if (!body)
            return 0;
        uint8_t *exact = realloc(body, head.n_bytes ? head.n_bytes : 1);
        body = exact ? exact : body;
        memcpy(body, data, head.n_bytes);
        read_body(head.type, body, head.n_bytes);
        free(body);
        data += head.n_bytes;
        size -= head.n_bytes;
    }
    return 0;
}
