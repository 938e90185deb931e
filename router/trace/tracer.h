/* tracer.h: sends what loops tell of requests to a collector: OTLP, protobuf over HTTP (--otlp-traces-endpoint).
 *
 * A thread of its own gathers records and posts them in batches. Nothing waits for it: its queue is bounded, and spans
 * beyond the bound, or that a collector does not take after some tries, are dropped and counted
 * (weir_otlp_spans_total). A collector in trouble is logged once.
 *
 * The environment says what OpenTelemetry's users expect it to, read once at start:
 *   OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
 *   OTEL_EXPORTER_OTLP_TRACES_HEADERS, or OTEL_EXPORTER_OTLP_HEADERS; likewise _TIMEOUT (ms), _CERTIFICATE (PEM file)
 *   and _PROTOCOL, which can only be http/protobuf
 *   OTEL_TRACES_SAMPLER with _ARG: always_on, always_off, traceidratio, and each with parentbased_ (the default is
 *   parentbased_always_on)
 *   OTEL_BSP_SCHEDULE_DELAY (ms), OTEL_BSP_MAX_QUEUE_SIZE and OTEL_BSP_MAX_EXPORT_BATCH_SIZE (spans)
 *   OTEL_SDK_DISABLED=true: nothing is sent
 *
 * Threads: trace_begin and tracer_add from any; new and free from one.
 */
#ifndef WEIR_ROUTER_TRACE_TRACER_H
#define WEIR_ROUTER_TRACE_TRACER_H

#include "common/err.h"
#include "router/trace/record.h"

struct rmetrics;
struct tracer;

/* tracer_check: whether an endpoint and the environment are such that tracer_new succeeds. RC_INVALID. */
MUST_USE enum rc tracer_check(const char *endpoint, struct err *e);
/* tracer_new: starts the thread; the collector need not be there. endpoint: http://HOST:PORT[/PATH] or https://, no
 * path means /v1/traces. *out may be NULL with RC_OK: OTEL_SDK_DISABLED. */
MUST_USE enum rc tracer_new(struct tracer **out, const char *endpoint, struct rmetrics *m, struct err *e);
/* tracer_free: sends what waits, for less than a second, and ends the thread. t may be NULL. */
void tracer_free(struct tracer *t);

/* trace_begin: a record with ids: of the caller's trace (parent: the value of its traceparent; state: of tracestate;
 * each may be empty, and is left out if it is not valid), else of a new one; sampled as the flags and the environment
 * say. t NULL: never sampled, and NULL without a valid parent. */
struct trace_record *trace_begin(const struct tracer *t, struct str parent, struct str state);
/* tracer_add: takes the record. Never blocks for longer than a list's lock. */
void tracer_add(struct tracer *t, struct trace_record *r);

#endif
