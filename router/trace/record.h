/* record.h: what a trace tells of one request, and its form for a collector (OTLP, proto/otlp.proto).
 *
 * A record becomes a span "llm_request" of kind SERVER and a child for each stage that the request came to.
 * Attributes have the names of OpenTelemetry's conventions for generative AI and, beside them, of vLLM. No word of a
 * prompt or an output is in it. Pure, but for the ids, which are random.
 *
 * Threads: a record belongs to the request's loop, then to the tracer's thread.
 */
#ifndef WEIR_ROUTER_TRACE_RECORD_H
#define WEIR_ROUTER_TRACE_RECORD_H

#include "common/buf.h"
#include "router/trace/context.h"

/* In the order of time. SEND: from the end of the answer to its last byte on the socket. */
enum trace_stage {
    TRACE_TEMPLATE = 0,
    TRACE_TOKENISE,
    TRACE_QUEUE,   /* for a worker, and in the worker's own queue */
    TRACE_TRANSFER, /* of that, in which KV blocks came from another worker */
    TRACE_PREFILL, /* first scheduled to first token */
    TRACE_DECODE,
    TRACE_SEND,
    N_TRACE_STAGE
};

struct trace_record {
    struct trace_record *next; /* the tracer's */
    struct trace_context from;
    uint8_t span[SPAN_ID_BYTES];
    char state[TRACE_STATE_BYTES_MAX + 1];
    /* Times are clock_ns. A stage with end 0 did not come to pass. */
    uint64_t begin_ns, end_ns, first_ns; /* first_ns: the first token; 0: none */
    struct {
        uint64_t begin_ns, end_ns;
    } stage[N_TRACE_STAGE];
    char route[64], id[200], model[257], model_asked[257];
    char internal_id[33];
    const char *operation, *end; /* literals: gen_ai.operation.name; how it ended */
    int status, http_status; /* how it ended, and what the head said: 200 where an error came as an event */
    bool generates;              /* what follows was asked for */
    double temperature, top_p;
    uint32_t n, max_tokens, top_k;
    uint32_t prompt_tokens, cached_tokens, completion_tokens, n_sequences, n_replays, n_hedges;
    int64_t worker; /* its number; below 0: none had it */
};

/* trace_record_spans: how many spans it becomes. */
size_t trace_record_spans(const struct trace_record *r);
/* trace_encode: appends an export request with the records of a list. resource: more attributes of this process;
 * service.name is among them, or service says it. unix_minus_clock_ns turns clock_ns into Unix time. */
void trace_encode(const struct trace_record *first, const char *service, const struct trace_pairs *resource,
                  int64_t unix_minus_clock_ns, struct buf *out);
/* trace_rejected: what a collector's answer says: how many spans it did not take. An answer that is none says 0. */
uint64_t trace_rejected(struct str answer);

#endif
