/* healthcheck.h: weir --healthcheck [URL]: for containers that have no curl. */
#ifndef WEIR_ROUTER_HEALTHCHECK_H
#define WEIR_ROUTER_HEALTHCHECK_H

/* healthcheck: GET /health of http://HOST[:PORT] or https://HOST[:PORT] (NULL: port 8000 of this machine): 0 if it
 * answers 200, 1 if it does not, 2 for another URL; says why on standard error. It gives nothing away and checks no
 * certificate: what it asks is whether the server runs. Blocks for at most some seconds. */
int healthcheck(const char *url);

#endif
