/* mock_cache.h: a prefix cache for the scripted engine, so that routing by prefix can be tried without a
 * model.
 *
 * Blocks and their names are an engine's (kv.h, prefix.h): prompts that begin alike share blocks, blocks that
 * nobody uses are kept until there is none left, the least recently used go first, and routers are told. What
 * an engine has and this has not: outputs take no blocks, and a prompt that finds no room is computed all the
 * same.
 *
 * Threads: none of its own; the mock locks.
 */
#ifndef WEIR_WORKER_MOCK_CACHE_H
#define WEIR_WORKER_MOCK_CACHE_H

#include "worker/engine.h"

struct mock_cache;
struct mock_cache *mock_cache_new(uint32_t n_blocks, uint32_t n_routers);
void mock_cache_free(struct mock_cache *c);

/* mock_cache_admit: the prompt of r is computed now: returns how many of its tokens were there, and holds its
 * blocks until mock_cache_drop. */
uint32_t mock_cache_admit(struct mock_cache *c, const struct req *r);
/* mock_cache_drop: r is over; nothing happens if it was never admitted. */
void mock_cache_drop(struct mock_cache *c, const struct req *r);
void mock_cache_reset(struct mock_cache *c);
uint32_t mock_cache_used(const struct mock_cache *c); /* blocks that requests hold */

/* mock_cache_snapshot: pieces of it come with the next reports. mock_cache_forget: not to a router that is
 * gone. */
void mock_cache_snapshot(struct mock_cache *c, uint32_t router, uint32_t epoch);
void mock_cache_forget(struct mock_cache *c, uint32_t router, uint32_t epoch);
/* mock_cache_report: what has changed since the last report, for a step's output; valid until the next call.
 * False: there is nothing to tell. */
bool mock_cache_report(struct mock_cache *c, struct step_out *out);

#endif
