/* structured.h: --structured-outputs-config, vLLM's object for what single flags say here (api.md 22.2). */
#ifndef WEIR_ROUTER_STRUCTURED_H
#define WEIR_ROUTER_STRUCTURED_H

#include "router/opts.h"

/* structured_apply: sets in *o what the object says: `backend`, `disable_any_whitespace`,
 * `disable_additional_properties` and `reasoning_parser` as the flags of those names do, on top of them;
 * `disable_fallback` has no effect, for there is one engine and no fallback. RC_INVALID, naming the key: another key or
 * kind, a parser that --reasoning-parser contradicts, a `reasoning_parser_plugin`, or `enable_in_reasoning`, as
 * structured output begins behind the reasoning (9.2.3). Repeated, it changes nothing more. */
MUST_USE enum rc structured_apply(struct router_opts *o, struct err *e);

#endif
