/* admit.h: whose a request is, and whether it may come in at all: by its headers, before its body is looked
 * at, so that who is over its limits costs next to nothing.
 *
 * Tenants are told apart by API key, or, where there are no keys, by the header of --tenant-header, which
 * whatever stands in front of the router must set. With --no-fairness, or without either, all are one.
 *
 * Threads: the request's loop.
 */
#ifndef WEIR_ROUTER_ADMIT_H
#define WEIR_ROUTER_ADMIT_H

#include "router/auth.h"
#include "router/core.h"

struct admitted {
    struct id128 tenant; /* all zero: has no name */
    struct quota *quota; /* held; NULL: no limits */
    int32_t priority;    /* of the --priority-header; has_priority: it came */
    bool has_priority;
};

/* admit: key is what check_key has found, all zero without keys; its quota goes to *out. False: *e has 400 or
 * 429, counted, *retry_after_s goes with it, and nothing is held. */
bool admit(const h2o_req_t *req, struct auth_key *key, struct admitted *out, struct err *e,
           unsigned *retry_after_s);
/* admit_prompt: the request's prompts have n_tokens. False: *e has 429, as above. */
bool admit_prompt(struct router *r, struct admitted *a, uint64_t n_tokens, struct err *e,
                  unsigned *retry_after_s);
/* admit_output: n tokens of output have come. */
void admit_output(struct admitted *a, uint32_t n_tokens);
/* admit_tenants: whether requests are told apart by tenant. */
bool admit_tenants(const struct router *r);

#endif
