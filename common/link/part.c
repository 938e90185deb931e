#include "common/link/part.h"

#include <openssl/crypto.h>

void parts_init(struct parts *p, size_t bytes_max) {
    *p = (struct parts){.bytes_max = bytes_max};
}

static void close_blob(struct parts *p, struct part_open *o) {
    p->announced_bytes -= o->total_bytes;
    buf_fini(&o->data);
    EVP_MD_CTX_free(o->sha);
    *o = p->open[--p->n_open];
}

void parts_fini(struct parts *p) {
    while (p->n_open)
        close_blob(p, &p->open[0]);
}

static enum rc open_blob(struct parts *p, const Weir__BlobPart *part, struct part_open **out, struct err *e) {
    if (part->offset != 0)
        return err_set(e, RC_PROTO, NULL, "a part of a blob that was never begun");
    if (part->kind != WEIR__BLOB_PART__KIND__ENVELOPE && part->kind != WEIR__BLOB_PART__KIND__TENSOR)
        return err_set(e, RC_PROTO, NULL, "a blob of unknown kind %d", (int)part->kind);
    if (part->total_bytes > p->bytes_max)
        return err_set(e, RC_PROTO, NULL, "a blob of %llu bytes (limit %zu)",
                       (unsigned long long)part->total_bytes, p->bytes_max);
    if (p->n_open == PART_OPEN_MAX || p->announced_bytes + part->total_bytes > 2 * (uint64_t)p->bytes_max)
        return err_set(e, RC_PROTO, NULL, "too many blobs at a time");
    struct part_open *o = &p->open[p->n_open++];
    *o = (struct part_open){.blob = part->blob, .total_bytes = part->total_bytes, .kind = part->kind};
    p->announced_bytes += part->total_bytes;
    if (o->kind == WEIR__BLOB_PART__KIND__TENSOR) {
        o->sha = EVP_MD_CTX_new();
        CHECK(o->sha && EVP_DigestInit_ex(o->sha, EVP_sha256(), NULL) == 1);
    }
    *out = o;
    return RC_OK;
}

/* finish: the blob is whole: checks a tensor's digest and hands the bytes over. */
static enum rc finish(struct parts *p, struct part_open *o, const Weir__BlobPart *part,
                      struct part_done *done, struct err *e) {
    uint8_t digest[32] = {0};
    if (o->kind == WEIR__BLOB_PART__KIND__TENSOR) {
        unsigned n = sizeof digest;
        CHECK(EVP_DigestFinal_ex(o->sha, digest, &n) == 1 && n == sizeof digest);
        if (!part->has_digest || part->digest.len != sizeof digest ||
            CRYPTO_memcmp(part->digest.data, digest, sizeof digest) != 0)
            return err_set(e, RC_PROTO, NULL, "a tensor whose digest is missing or wrong");
    }
    done->kind = o->kind;
    done->data = o->data;
    memcpy(done->digest, digest, sizeof digest);
    o->data = (struct buf){0};
    close_blob(p, o);
    return RC_OK;
}

enum rc parts_add(struct parts *p, const Weir__BlobPart *part, uint64_t now_ns, struct part_done *done,
                  bool *complete, struct err *e) {
    struct part_open *o = NULL;
    *complete = false;
    if (!part->has_blob || !part->has_kind || !part->has_total_bytes || !part->has_offset || !part->has_data)
        return err_set(e, RC_PROTO, NULL, "a part that lacks a field");
    for (size_t i = 0; i < p->n_open; i++)
        if (p->open[i].blob == part->blob)
            o = &p->open[i];
    if (!o) {
        enum rc rc = open_blob(p, part, &o, e);
        if (rc)
            return rc;
    }
    if (part->kind != o->kind || part->total_bytes != o->total_bytes || part->offset != o->data.len ||
        part->data.len > o->total_bytes - o->data.len || (part->data.len == 0 && o->total_bytes > 0))
        return err_set(e, RC_PROTO, NULL, "a part that does not fit its blob");
    buf_add(&o->data, part->data.data, part->data.len);
    if (o->sha)
        CHECK(EVP_DigestUpdate(o->sha, part->data.data, part->data.len) == 1);
    o->last_ns = now_ns;
    if (o->data.len < o->total_bytes)
        return RC_OK;
    enum rc rc = finish(p, o, part, done, e);
    *complete = rc == RC_OK;
    return rc;
}

enum rc parts_check(const struct parts *p, uint64_t now_ns, struct err *e) {
    for (size_t i = 0; i < p->n_open; i++)
        if (now_ns > p->open[i].last_ns && now_ns - p->open[i].last_ns > PART_IDLE_NS)
            return err_set(e, RC_PROTO, NULL, "a blob left open at %zu of %llu bytes", p->open[i].data.len,
                           (unsigned long long)p->open[i].total_bytes);
    return RC_OK;
}
