/* admin.h: the routes of --enable-admin-api (api.md 15.4). Each ends the request, at once or after a round
 * through the loops or the workers. Threads: the request's loop. */
#ifndef WEIR_ROUTER_ADMIN_H
#define WEIR_ROUTER_ADMIN_H

#include "router/core.h"

void admin_workers(h2o_req_t *req, struct str suffix);
void admin_reset(h2o_req_t *req, struct str suffix);
/* admin_requests: what is being worked on, by all loops; never a word of a prompt or an output. */
void admin_requests(h2o_req_t *req, struct str suffix);
/* admin_abort: the body, if there is one, is {"request_ids": [...]}. */
void admin_abort(h2o_req_t *req, struct str suffix);

#endif
