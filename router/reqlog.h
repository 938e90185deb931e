/* reqlog.h: prompts and outputs in the log (api.md 19.3.2): only with --enable-log-requests and
 * --enable-log-outputs, cut at --max-log-len bytes; the log escapes control characters. Never salts, keys or
 * transfer ids. Threads: the session's loop. */
#ifndef WEIR_ROUTER_REQLOG_H
#define WEIR_ROUTER_REQLOG_H

#include "common/text/tok.h"
#include "router/api/gen.h"

/* reqlog_prompt: the first prompt of a request, as the model gets it, and how many there are. */
void reqlog_prompt(const struct gen_req *r, struct str suffix, size_t bytes_max);
/* reqlog_token: keeps a token of an output for reqlog_output; no more than can be shown. */
void reqlog_token(struct tok_ids *kept, uint32_t id, size_t bytes_max);
/* reqlog_output: what was kept of one choice, as text: what the model wrote, also beyond a stop string. */
void reqlog_output(const struct gen_req *r, struct str suffix, uint32_t choice, const struct tok_ids *kept,
                   size_t bytes_max);

#endif
