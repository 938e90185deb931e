/* offload.h: the trip of a request's body to the pool and back: JSON, template, tokens. */
#ifndef WEIR_ROUTER_OFFLOAD_H
#define WEIR_ROUTER_OFFLOAD_H

#include "router/core.h"

/* offload_prepare: copies body and suffix, and has gen_prepare run on the pool; done comes on the loop, with
 * the request (the callee's), or with the error and the id that the refused body asked for ("": none). False:
 * the pool or the memory for bodies is full, and done does not come. */
bool offload_prepare(struct loop *l, void *owner,
                     void (*done)(struct loop *l, void *owner, struct gen_req *req, const struct err *e,
                                  const char *asked_id),
                     enum gen_route route, struct str body, struct str suffix);

/* offload_here: whether a body of n bytes is so short that the loop may as well do the work itself: the way
 * to the pool and back costs more. Not for a second once such bodies took longer than a loop's slice, on the
 * average. */
bool offload_here(const struct loop *l, size_t n);
/* offload_prepare_here: what offload_prepare does, on the loop's thread; body is only read, done comes before
 * it returns. A piece of the loop's backlog, so that many of them share the loop with all else. False: it
 * turned out to be one that may take long, and done does not come. */
bool offload_prepare_here(struct loop *l, void *owner,
                          void (*done)(struct loop *l, void *owner, struct gen_req *req, const struct err *e,
                                       const char *asked_id),
                          enum gen_route route, struct str body, struct str suffix);

/* offload_find_model: the find_model of gen_env; arg is the router. Notes for offload_prepare whether a
 * worker serves the model. */
struct model_info *offload_find_model(void *arg, struct str name);

/* offload_end_transfer: the end_transfer of gen_env, likewise. */
void offload_end_transfer(void *arg, const struct kv_params *p);

/* What else runs on the pool for a body or a page. */
enum pool_work { WORK_TOKENIZE = 0, WORK_DETOKENIZE, WORK_METRICS, WORK_OPENAPI };
/* offload_reply: answers the request with what the work makes of its body. */
void offload_reply(h2o_req_t *req, enum pool_work work, struct str suffix);

#endif
