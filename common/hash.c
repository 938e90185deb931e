#include "common/hash.h"

/* The one-shot EVP calls allocate on each use; a block hash costs less than that. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

static void put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* The three uses of SHA-256 begin with different words, so that none can pass for another. */
static const char tag_domain[8] = "weirDOM1", tag_block[8] = "weirBLK1";

static struct id128 truncated(const uint8_t digest[32]) {
    struct id128 id;
    memcpy(id.b, digest, sizeof id.b);
    return id;
}

void hash_sha256(const void *p, size_t n, uint8_t out[32]) {
    SHA256_CTX c;
    SHA256_Init(&c);
    if (n)
        SHA256_Update(&c, p, n);
    SHA256_Final(out, &c);
}

struct id128 hash_domain(const struct hash_field *fields, size_t n) {
    uint8_t head[10], digest[32];
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, tag_domain, sizeof tag_domain);
    for (size_t i = 0; i < n; i++) {
        head[0] = (uint8_t)fields[i].kind;
        head[1] = fields[i].bytes.p != NULL;
        put_u64(head + 2, fields[i].bytes.n);
        SHA256_Update(&c, head, sizeof head);
        if (fields[i].bytes.n)
            SHA256_Update(&c, fields[i].bytes.p, fields[i].bytes.n);
    }
    SHA256_Final(digest, &c);
    return truncated(digest);
}

struct id128 hash_block(struct id128 parent, struct id128 domain, const uint32_t tokens[HASH_BLOCK_TOKENS],
                        const struct id128 *media) {
    uint8_t in[8 + 16 + 16 + 4 * HASH_BLOCK_TOKENS + 1 + 16], *p = in, digest[32];
    memcpy(p, tag_block, 8);
    memcpy(p += 8, parent.b, 16);
    memcpy(p += 16, domain.b, 16);
    p += 16;
    for (int i = 0; i < HASH_BLOCK_TOKENS; i++, p += 4) {
        p[0] = (uint8_t)tokens[i];
        p[1] = (uint8_t)(tokens[i] >> 8);
        p[2] = (uint8_t)(tokens[i] >> 16);
        p[3] = (uint8_t)(tokens[i] >> 24);
    }
    *p++ = media != NULL;
    if (media) {
        memcpy(p, media->b, 16);
        p += 16;
    }
    hash_sha256(in, (size_t)(p - in), digest);
    return truncated(digest);
}

/* Multiply and fold, 8 bytes at a time (the mixing step of wyhash and its kin). */
static uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

uint64_t hash_fast(const void *p, size_t n, uint64_t seed) {
    const uint64_t k0 = 0x9e3779b97f4a7c15ull, k1 = 0xe7037ed1a0b428dbull;
    const unsigned char *s = p;
    uint64_t h = seed ^ fold(n ^ k0, k1), v;
    for (; n >= 8; n -= 8, s += 8) {
        memcpy(&v, s, 8);
        h = fold(h ^ v ^ k0, k1);
    }
    v = 0;
    if (n)
        memcpy(&v, s, n);
    return fold(h ^ v ^ k1, k0 ^ n);
}
