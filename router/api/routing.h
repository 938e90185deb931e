/* routing.h: what of a request tells where it should go: the names of its prompts' blocks, and its session.
 */
#ifndef WEIR_ROUTER_API_ROUTING_H
#define WEIR_ROUTER_API_ROUTING_H

#include "router/api/gen.h"

/* routing_blocks: names of the full blocks that a worker may take from its prefix cache, for every prompt;
 * none if the policy does not look at them, or the request does not read the cache. Some 110 ns a block. */
void routing_blocks(const struct router_opts *o, struct gen_req *r);
/* routing_session: a key that the turns of a conversation share: of the messages up to the user's first one
 * (messages NULL: of the prompt's beginning), under consistent-hash only. */
void routing_session(const struct router_opts *o, const json_t *messages, struct gen_req *r);

#endif
