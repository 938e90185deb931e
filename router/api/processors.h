/* processors.h: logits processors of a request (api.md 8.10). Workers have them; a router knows which names requests
 * may use. Any thread: a pattern is immutable. */
#ifndef WEIR_ROUTER_API_PROCESSORS_H
#define WEIR_ROUTER_API_PROCESSORS_H

#include "router/api/fields.h"
#include "router/api/gen.h"

/* processor_names_new: of --logits-processor-pattern; NULL for NULL, which allows none. gram_drop frees it. RC_INVALID:
 * the pattern does not compile. */
MUST_USE enum rc processor_names_new(struct gram **out, const char *pattern, struct err *e);
/* processors_read: both fields, into r->s. RC_INVALID names what is wrong. */
MUST_USE enum rc processors_read(const struct field_values *v, struct gram *names, struct gen_req *r, struct err *e);

#endif
