/* quota.h: how many requests, and how many tokens, one key may have in a minute: two buckets that fill
 * steadily and hold a minute's worth.
 *
 * A request takes one from the first when it comes, and its prompt's tokens from the second when they are
 * counted; tokens of output are taken as they come, whether they are there or not, so that a bucket may owe:
 * until it has filled up again nothing more gets in. On the average of some minutes the limit holds exactly,
 * in one of them at most twice and what was running. Each router counts for itself.
 *
 * Threads: any; a lock of its own, held for some ten nanoseconds.
 */
#ifndef WEIR_ROUTER_QUOTA_H
#define WEIR_ROUTER_QUOTA_H

#include "common/base.h"

#define QUOTA_MAX 1000000000u
struct quota_limits {
    uint32_t requests, tokens; /* a minute; 0: no limit */
};
struct quota;
/* quota_new: full buckets; one reference. */
struct quota *quota_new(struct quota_limits limits, uint64_t now_ns);
struct quota *quota_hold(struct quota *q);
void quota_drop(struct quota *q); /* NULL is fine */
/* quota_change: other limits from now on; what is there stays, as far as it has room. */
void quota_change(struct quota *q, struct quota_limits limits, uint64_t now_ns);

enum quota_verdict { QUOTA_OK = 0, QUOTA_REQUESTS, QUOTA_TOKENS };
/* quota_request: takes a request, unless there is none left, or no token; then *wait_s: until there is one
 * again, 1 to 60 seconds. */
enum quota_verdict quota_request(struct quota *q, uint64_t now_ns, unsigned *wait_s);
/* quota_prompt: takes n tokens, unless they are more than there are; a full bucket gives any number. */
enum quota_verdict quota_prompt(struct quota *q, uint64_t now_ns, uint64_t n, unsigned *wait_s);
/* quota_output: takes n tokens. */
void quota_output(struct quota *q, uint64_t now_ns, uint64_t n);
/* quota_read: the limits. */
struct quota_limits quota_read(struct quota *q);

#endif
