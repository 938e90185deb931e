/* hash.h: the block hash that router and worker share (architecture 5), and a fast hash for tables.
 *
 * A prefix block of 16 tokens is named by SHA-256, truncated to 128 bits, over (parent, domain, tokens). The
 * domain is a digest of fields that are each tagged with their kind, so that equal bytes in different kinds
 * never collide: a salt can never equal an adapter's name.
 */
#ifndef WEIR_COMMON_HASH_H
#define WEIR_COMMON_HASH_H

#include "common/base.h"

enum { HASH_BLOCK_TOKENS = 16 };
enum hash_kind { HASH_MODEL = 1, HASH_ADAPTER = 2, HASH_SALT = 3, HASH_MEDIA = 4 };
struct hash_field {
    enum hash_kind kind;
    struct str bytes; /* p NULL: the field is absent, which differs from empty */
};

/* hash_domain: digest of the fields, in the order given; each is written as kind, presence, length, bytes. */
struct id128 hash_domain(const struct hash_field *fields, size_t n);
/* hash_block: the name of a full block. parent is the previous block's name, all zero for the first. media is
 * the digest of the media item that starts in this block, NULL for none. */
struct id128 hash_block(struct id128 parent, struct id128 domain, const uint32_t tokens[HASH_BLOCK_TOKENS],
                        const struct id128 *media);
/* hash_sha256: plain SHA-256 of n bytes. */
void hash_sha256(const void *p, size_t n, uint8_t out[32]);

/* hash_fast: a seeded 64-bit hash for tables inside one process; not stable between versions. Use a random
 * seed where clients choose the keys. */
uint64_t hash_fast(const void *p, size_t n, uint64_t seed);
static inline uint64_t hash_u64(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return x ^ x >> 32;
}

#endif
