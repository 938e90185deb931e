#include "router/api/routing.h"

#include <stdlib.h>

#include "common/hash.h"
#include "router/fleet/policy.h"

enum { SESSION_TOKENS = 256 }; /* of a prompt, that tell conversations apart */

void routing_blocks(const struct router_opts *o, struct gen_req *r) {
    if (policy_of(o->policy) != POLICY_PREFIX || r->pool || r->n_prompt_top >= 0)
        return;
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        struct gen_prompt *p = &r->prompts[i];
        /* The last token is always computed. */
        uint32_t n = p->n_ids ? (p->n_ids - 1) / HASH_BLOCK_TOKENS : 0;
        struct id128 parent = {{0}}, *blocks = arena_alloc(&r->arena, MAX(n, 1) * sizeof *blocks);
        for (uint32_t k = 0; k < n; k++)
            parent = blocks[k] = hash_block(parent, r->domain, p->ids + (size_t)k * HASH_BLOCK_TOKENS, NULL);
        p->blocks = blocks;
        p->n_blocks = n;
    }
}

/* message_key: of one message, into what the ones before it have made. */
static uint64_t message_key(const json_t *m, uint64_t key) {
    char *text = json_dumps(m, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (text)
        key = hash_fast(text, strlen(text), key);
    free(text);
    return key;
}

void routing_session(const struct router_opts *o, const json_t *messages, struct gen_req *r) {
    if (policy_of(o->policy) != POLICY_CONSISTENT_HASH)
        return;
    uint64_t key = 0;
    bool user = false;
    for (size_t i = 0; i < json_array_size(messages) && !user; i++) {
        const json_t *m = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        user = role && !strcmp(role, "user");
        key = message_key(m, key);
    }
    if (!messages && r->n_prompts)
        key = hash_fast(r->prompts[0].ids,
                        MIN(r->prompts[0].n_ids, (uint32_t)SESSION_TOKENS) * sizeof(uint32_t), 0);
    r->session_key = key;
}
