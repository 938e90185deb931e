/* settings.h: private to router/trace: what the environment says (tracer.h lists it), checked. */
#ifndef WEIR_ROUTER_TRACE_SETTINGS_H
#define WEIR_ROUTER_TRACE_SETTINGS_H

#include "common/err.h"
#include "router/trace/context.h"

struct trace_sampler {
    bool by_parent; /* where there is one, its flag decides */
    bool always;
    uint64_t below; /* else: traces whose last eight bytes, big-endian, are less than this */
};

struct trace_settings {
    char *url; /* with a path */
    char *service;
    char *ca_file; /* NULL: the system's authorities */
    struct trace_pairs headers, resource;
    struct trace_sampler sampler;
    uint64_t timeout_ms, delay_ms;
    uint64_t queue_max, batch_max; /* spans */
    bool disabled;
};

/* trace_settings_read: getenv, or a test's environment. RC_INVALID names the variable. fini also after that. */
MUST_USE enum rc trace_settings_read(struct trace_settings *s, const char *endpoint, char *(*get)(const char *name),
                                     struct err *e);
void trace_settings_fini(struct trace_settings *s);
/* trace_sampler_takes: c has its trace's id. */
bool trace_sampler_takes(const struct trace_sampler *s, const struct trace_context *c);

#endif
