#include "router/trace/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/clock.h"
#include "common/version.h"
#include "proto/otlp.pb-c.h"

enum { ATTRIBUTES_MAX = 48, ANSWER_BYTES_MAX = 64 * 1024 };

/* W3C's flag, and whether the parent is of another process (OTLP, Span.flags). */
enum { FLAG_SAMPLED = 1, FLAG_HAS_REMOTE = 0x100, FLAG_REMOTE = 0x200 };

static const char *const stage_names[N_TRACE_STAGE] = {"template", "tokenise", "queue", "transfer",
                                                        "prefill", "decode", "send"};

size_t trace_record_spans(const struct trace_record *r) {
    size_t n = 1;
    for (int i = 0; i < N_TRACE_STAGE; i++)
        n += r->stage[i].end_ns != 0;
    return n;
}

/* ---- attributes -------------------------------------------------------------------------------------- */

/* maker: an export in the making; everything lies in the arena. Texts are borrowed from the records. */
struct maker {
    struct arena arena;
    int64_t offset_ns;
};
struct attributes {
    struct maker *m;
    Otlp__KeyValue **v; /* [ATTRIBUTES_MAX] */
    size_t n;
};

static struct attributes attributes_new(struct maker *m) {
    return (struct attributes){.m = m, .v = arena_zalloc(&m->arena, ATTRIBUTES_MAX, sizeof(Otlp__KeyValue *))};
}

static Otlp__AnyValue *add(struct attributes *a, const char *key, Otlp__AnyValue__ValueCase kind) {
    CHECK(a->n < ATTRIBUTES_MAX);
    Otlp__KeyValue *kv = arena_alloc(&a->m->arena, sizeof *kv);
    otlp__key_value__init(kv);
    kv->key = (char *)(uintptr_t)key;
    kv->value = arena_alloc(&a->m->arena, sizeof *kv->value);
    otlp__any_value__init(kv->value);
    kv->value->value_case = kind;
    a->v[a->n++] = kv;
    return kv->value;
}

/* add_text: nothing if there is none. */
static void add_text(struct attributes *a, const char *key, const char *text) {
    if (text && *text)
        add(a, key, OTLP__ANY_VALUE__VALUE_STRING_VALUE)->string_value = (char *)(uintptr_t)text;
}

static void add_int(struct attributes *a, const char *key, int64_t v) {
    add(a, key, OTLP__ANY_VALUE__VALUE_INT_VALUE)->int_value = v;
}

static void add_double(struct attributes *a, const char *key, double v) {
    add(a, key, OTLP__ANY_VALUE__VALUE_DOUBLE_VALUE)->double_value = v;
}

static double seconds(uint64_t begin_ns, uint64_t end_ns) {
    return end_ns > begin_ns ? (double)(end_ns - begin_ns) * 1e-9 : 0;
}

/* add_asked: what the client wanted. */
static void add_asked(struct attributes *a, const struct trace_record *r) {
    add_text(a, "http.request.method", "POST");
    add_text(a, "http.route", r->route);
    add_int(a, "http.response.status_code", r->http_status);
    add_text(a, "gen_ai.provider.name", "weir");
    add_text(a, "gen_ai.operation.name", r->operation);
    add_text(a, "gen_ai.request.id", r->id);
    add_text(a, "gen_ai.request.model", r->model_asked);
    if (!r->generates)
        return;
    add_int(a, "gen_ai.request.max_tokens", r->max_tokens);
    add_double(a, "gen_ai.request.temperature", r->temperature);
    add_double(a, "gen_ai.request.top_p", r->top_p);
    if (r->top_k)
        add_int(a, "gen_ai.request.top_k", r->top_k);
    add_int(a, "gen_ai.request.n", r->n);
    add_int(a, "gen_ai.request.choice.count", r->n);
}

/* add_given: what came of it. vLLM has names of its own beside the conventions': both are there. */
static void add_given(struct attributes *a, const struct trace_record *r) {
    if (r->model[0]) {
        add_text(a, "gen_ai.response.model", r->model);
        add_text(a, "gen_ai.response.id", r->id);
        add_int(a, "gen_ai.usage.input_tokens", r->prompt_tokens);
        add_int(a, "gen_ai.usage.prompt_tokens", r->prompt_tokens);
        add_int(a, "gen_ai.usage.output_tokens", r->completion_tokens);
        add_int(a, "gen_ai.usage.completion_tokens", r->completion_tokens);
        add_int(a, "gen_ai.usage.cache_read.input_tokens", r->cached_tokens);
        add_int(a, "gen_ai.usage.num_sequences", r->n_sequences);
    }
    double prefill_s = seconds(r->stage[TRACE_PREFILL].begin_ns, r->stage[TRACE_PREFILL].end_ns);
    double decode_s = seconds(r->stage[TRACE_DECODE].begin_ns, r->stage[TRACE_DECODE].end_ns);
    add_double(a, "gen_ai.latency.e2e", seconds(r->begin_ns, r->end_ns));
    if (r->stage[TRACE_QUEUE].end_ns)
        add_double(a, "gen_ai.latency.time_in_queue",
                   seconds(r->stage[TRACE_QUEUE].begin_ns, r->stage[TRACE_QUEUE].end_ns));
    if (r->first_ns) {
        add_double(a, "gen_ai.latency.time_to_first_token", seconds(r->begin_ns, r->first_ns));
        add_double(a, "gen_ai.latency.time_in_model_prefill", prefill_s);
        add_double(a, "gen_ai.latency.time_in_model_decode", decode_s);
        add_double(a, "gen_ai.latency.time_in_model_inference", prefill_s + decode_s);
    }
    add_text(a, "weir.internal_id", r->internal_id);
    add_text(a, "weir.end", r->end);
    if (r->worker >= 0)
        add_int(a, "weir.worker", r->worker);
    if (r->n_replays)
        add_int(a, "weir.replays", r->n_replays);
    if (r->n_hedges)
        add_int(a, "weir.hedges", r->n_hedges);
}

/* ---- spans ------------------------------------------------------------------------------------------- */

static Otlp__Span *span_new(struct maker *m, const struct trace_record *r, const char *name, const uint8_t *id,
                            const uint8_t *parent, uint64_t begin_ns, uint64_t end_ns) {
    Otlp__Span *s = arena_alloc(&m->arena, sizeof *s);
    otlp__span__init(s);
    s->has_trace_id = s->has_span_id = s->has_kind = s->has_flags = true;
    s->has_start_time_unix_nano = s->has_end_time_unix_nano = true;
    s->trace_id = (ProtobufCBinaryData){sizeof r->from.trace.b, (uint8_t *)(uintptr_t)r->from.trace.b};
    s->span_id = (ProtobufCBinaryData){SPAN_ID_BYTES, (uint8_t *)(uintptr_t)id};
    s->has_parent_span_id = parent != NULL;
    s->parent_span_id = (ProtobufCBinaryData){parent ? SPAN_ID_BYTES : 0, (uint8_t *)(uintptr_t)parent};
    s->trace_state = r->state[0] ? (char *)(uintptr_t)r->state : NULL;
    s->name = (char *)(uintptr_t)name;
    s->kind = OTLP__SPAN__KIND__INTERNAL;
    s->flags = FLAG_SAMPLED | FLAG_HAS_REMOTE;
    s->start_time_unix_nano = begin_ns + (uint64_t)m->offset_ns;
    s->end_time_unix_nano = MAX(end_ns, begin_ns) + (uint64_t)m->offset_ns;
    return s;
}

static Otlp__Span *request_span(struct maker *m, const struct trace_record *r) {
    Otlp__Span *s = span_new(m, r, "llm_request", r->span, r->from.has_parent ? r->from.parent : NULL, r->begin_ns,
                             r->end_ns);
    struct attributes a = attributes_new(m);
    s->kind = OTLP__SPAN__KIND__SERVER;
    if (r->from.has_parent)
        s->flags |= FLAG_REMOTE;
    add_asked(&a, r);
    add_given(&a, r);
    if (r->status >= 400) {
        char *status = arena_alloc(&m->arena, 16);
        snprintf(status, 16, "%d", r->status);
        add_text(&a, "error.type", status);
    }
    /* A client's mistake is no error of a server's span (the conventions for HTTP). */
    if (r->status >= 500) {
        s->status = arena_alloc(&m->arena, sizeof *s->status);
        otlp__status__init(s->status);
        s->status->has_code = true;
        s->status->code = OTLP__STATUS__CODE__ERROR;
        s->status->message = (char *)(uintptr_t)r->end;
    }
    s->attributes = a.v;
    s->n_attributes = a.n;
    return s;
}

static Otlp__Span *stage_span(struct maker *m, const struct trace_record *r, int stage) {
    uint8_t *id = arena_alloc(&m->arena, SPAN_ID_BYTES);
    fill_random(id, SPAN_ID_BYTES);
    id[0] |= 1; /* an id is never all zero */
    return span_new(m, r, stage_names[stage], id, r->span, r->stage[stage].begin_ns, r->stage[stage].end_ns);
}

static void add_resource(struct attributes *a, const char *service, const struct trace_pairs *more) {
    const size_t room = ATTRIBUTES_MAX - 4;
    add_text(a, "service.name", service);
    if (!trace_pairs_get(more, "service.version"))
        add_text(a, "service.version", WEIR_VERSION);
    if (!trace_pairs_get(more, "process.pid"))
        add_int(a, "process.pid", getpid());
    for (size_t i = 0; i < more->n && a->n < room; i++)
        if (strcmp(more->v[i].key, "service.name"))
            add_text(a, more->v[i].key, more->v[i].value);
}

void trace_encode(const struct trace_record *first, const char *service, const struct trace_pairs *resource,
                  int64_t unix_minus_clock_ns, struct buf *out) {
    struct maker m = {.offset_ns = unix_minus_clock_ns};
    Otlp__ExportRequest top = OTLP__EXPORT_REQUEST__INIT;
    Otlp__ResourceSpans by_resource = OTLP__RESOURCE_SPANS__INIT, *resources[1] = {&by_resource};
    Otlp__Resource r = OTLP__RESOURCE__INIT;
    Otlp__ScopeSpans by_scope = OTLP__SCOPE_SPANS__INIT, *scopes[1] = {&by_scope};
    Otlp__Scope scope = OTLP__SCOPE__INIT;
    char name[] = "weir", version[] = WEIR_VERSION;
    size_t n = 0, at = 0;
    arena_init(&m.arena);
    for (const struct trace_record *x = first; x; x = x->next)
        n += trace_record_spans(x);
    Otlp__Span **spans = arena_zalloc(&m.arena, n, sizeof *spans);
    for (const struct trace_record *x = first; x; x = x->next) {
        spans[at++] = request_span(&m, x);
        for (int i = 0; i < N_TRACE_STAGE; i++)
            if (x->stage[i].end_ns)
                spans[at++] = stage_span(&m, x, i);
    }
    struct attributes a = attributes_new(&m);
    add_resource(&a, service, resource);
    r.attributes = a.v;
    r.n_attributes = a.n;
    scope.name = name;
    scope.version = version;
    by_scope.scope = &scope;
    by_scope.spans = spans;
    by_scope.n_spans = at;
    by_resource.resource = &r;
    by_resource.scope_spans = scopes;
    by_resource.n_scope_spans = 1;
    top.resource_spans = resources;
    top.n_resource_spans = 1;
    size_t size = otlp__export_request__get_packed_size(&top);
    CHECK(otlp__export_request__pack(&top, (uint8_t *)buf_reserve(out, size)) == size);
    out->len += size;
    arena_fini(&m.arena);
}

uint64_t trace_rejected(struct str answer) {
    if (answer.n == 0 || answer.n > ANSWER_BYTES_MAX)
        return 0;
    Otlp__ExportResponse *m = otlp__export_response__unpack(NULL, answer.n, (const uint8_t *)answer.p);
    int64_t n = m && m->partial_success ? m->partial_success->rejected_spans : 0;
    if (m)
        otlp__export_response__free_unpacked(m, NULL);
    return n > 0 ? (uint64_t)n : 0;
}
