/* pages.h: routes that need no worker and no pool: answered at once. Each ends the request (reply.h).
 * Threads: the request's loop. */
#ifndef WEIR_ROUTER_PAGES_H
#define WEIR_ROUTER_PAGES_H

#include "router/core.h"

void page_health(h2o_req_t *req, struct str suffix);
void page_models(h2o_req_t *req, struct str suffix);
/* page_model: path: as matched by route, the name is its rest. */
void page_model(h2o_req_t *req, const struct route *route, struct str path, struct str suffix);
void page_load(h2o_req_t *req, struct str suffix);
void page_version(h2o_req_t *req, struct str suffix);
/* page_tokenizer_info: of the first model (api.md 14.3). */
void page_tokenizer_info(h2o_req_t *req, struct str suffix);
/* page_playground: the page of router/ui. */
void page_playground(h2o_req_t *req, struct str suffix);

#endif
