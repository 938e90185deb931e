/* openapi.c: routes and fields as operations and schemas. */
#include "router/api/openapi.h"

#include <math.h>

#include "common/json.h"
#include "common/version.h"
#include "router/api/error.h"
#include "router/api/fields.h"
#include "router/auth.h"
#include "router/route.h"

#define REF(name) "{\"$ref\":\"#/components/schemas/" name "\"}"

/* ---- what no table says of a route ------------------------------------------------------------------- */

enum { RETRY = 1, GONE = 2 }; /* may be 429 or 503; may be 404 */

/* One of these: the input of the pooling family, of tokenize, and the spellings of score's pair. */
#define INPUT_OR_MESSAGES "[{\"required\":[\"input\"]},{\"required\":[\"messages\"]}]"
#define PROMPT_OR_MESSAGES "[{\"required\":[\"prompt\"]},{\"required\":[\"messages\"]}]"
#define PAIRS                                                                                                \
    "[{\"required\":[\"text_1\",\"text_2\"]},{\"required\":[\"queries\",\"documents\"]},"                    \
    "{\"required\":[\"queries\",\"items\"]},{\"required\":[\"data_1\",\"data_2\"]}]"

#define ABORT_BODY                                                                                           \
    OPENAPI_JSON({"type": "object", "properties": {"request_ids": {"type": ["array", "null"],                \
        "description": "ids as clients know them; null or empty: every request",                             \
        "items": {"type": "string"}}}})

static const struct op {
    enum route_id id;
    unsigned on; /* fields of its body; 0: no body */
    unsigned flags;
    const char *tag, *summary;
    const char *answer; /* of openapi_answers; NULL: an empty body */
    const char *chunk;  /* of an event, where there is a stream */
    const char *any_of; /* of the body */
    const char *body;   /* the whole schema of a body that no table describes and that may be left out */
} ops[] = {
    {ROUTE_CHAT, ON_CHAT, RETRY | GONE, "generation", "Continue a conversation", "ChatCompletion",
     "ChatCompletionChunk", NULL, NULL},
    {ROUTE_COMPLETIONS, ON_COMPLETIONS, RETRY | GONE, "generation", "Continue prompts", "Completion",
     "CompletionChunk", NULL, NULL},
    {ROUTE_EMBEDDINGS, ON_EMBEDDINGS, RETRY | GONE, "pooling", "Embed texts", "Embeddings", NULL,
     INPUT_OR_MESSAGES, NULL},
    {ROUTE_POOLING, ON_POOLING, RETRY | GONE, "pooling", "Pool texts, by token or as a whole", "Pooled", NULL,
     INPUT_OR_MESSAGES, NULL},
    {ROUTE_CLASSIFY, ON_CLASSIFY, RETRY | GONE, "pooling", "Classify texts", "Classes", NULL,
     INPUT_OR_MESSAGES, NULL},
    {ROUTE_SCORE, ON_SCORE, RETRY | GONE, "pooling", "Score pairs of texts", "Scores", NULL, PAIRS, NULL},
    {ROUTE_RERANK, ON_RERANK, RETRY | GONE, "pooling", "Order documents by a query", "Ranking", NULL,
     NULL, NULL},
    {ROUTE_TOKENIZE, ON_TOKENIZE, RETRY | GONE, "tokenizer", "Token ids of a text or a conversation",
     "Tokens", NULL, PROMPT_OR_MESSAGES, NULL},
    {ROUTE_DETOKENIZE, ON_DETOKENIZE, RETRY | GONE, "tokenizer", "The text of token ids", "TextOfTokens",
     NULL, NULL, NULL},
    {ROUTE_MODELS, 0, 0, "models", "The models served", "Models", NULL, NULL, NULL},
    {ROUTE_MODEL, 0, GONE, "models", "One model", "Model", NULL, NULL, NULL},
    {ROUTE_HEALTH, 0, RETRY, "server", "Whether requests are answered", NULL, NULL, NULL, NULL},
    {ROUTE_PING, 0, RETRY, "server", "Whether requests are answered", NULL, NULL, NULL, NULL},
    {ROUTE_LIVEZ, 0, 0, "server", "Whether the server runs", NULL, NULL, NULL, NULL},
    {ROUTE_VERSION, 0, 0, "server", "The server's version", "Version", NULL, NULL, NULL},
    {ROUTE_METRICS, 0, RETRY, "server", "Metrics for Prometheus", "", NULL, NULL, NULL},
    {ROUTE_LOAD, 0, 0, "server", "How many requests are being answered", "Load", NULL, NULL, NULL},
    {ROUTE_OPENAPI, 0, 0, "server", "This document", "", NULL, NULL, NULL},
    {ROUTE_PLAYGROUND, 0, 0, "server", "A page to try the model with", "", NULL, NULL, NULL},
    {ROUTE_ABORT, 0, 0, "admin", "Abort requests by the ids in request_ids, or all", "Aborted", NULL,
     NULL, ABORT_BODY},
    {ROUTE_RESET, 0, RETRY, "admin", "Forget what prefix caches hold", "Reset", NULL, NULL, NULL},
    {ROUTE_REQUESTS, 0, 0, "admin", "What is being worked on", "Requests", NULL, NULL, NULL},
    {ROUTE_WORKERS, 0, 0, "admin", "The workers and how they are", "Workers", NULL, NULL, NULL},
    {ROUTE_TOKENIZER_INFO, 0, RETRY, "tokenizer", "The tokenizer's configuration", "TokenizerInfo", NULL,
     NULL, NULL},
};

static const struct op *op_of(const struct route *r) {
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (ops[i].id == r->id)
            return &ops[i];
    return NULL;
}

/* ---- fields ------------------------------------------------------------------------------------------ */

/* add_key: the next member of the object that b is in. */
static void add_key(struct buf *b, const char *key) {
    buf_addf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", key);
}

static void add_number(double v, struct buf *b) {
    if (v == trunc(v) && fabs(v) < 0x1p53)
        jw_i64(b, (int64_t)v);
    else
        jw_f64(b, v);
}

static void add_range(const struct field *f, const struct router_limits *limits, struct buf *b) {
    double lo = f->lo, hi = f->hi;
    if (f->limit) {
        int64_t max = api_field_max(f, limits);
        lo = max == -1 ? -1 : lo; /* --max-logprobs -1 */
        hi = max == -1 ? INFINITY : (double)max;
    } else if (lo == 0 && hi == 0) {
        return;
    }
    add_key(b, f->lo_open ? "exclusiveMinimum" : "minimum");
    add_number(lo, b);
    if (hi < 1e300) {
        add_key(b, "maximum");
        add_number(hi, b);
    }
}

static void add_words(const char *words, bool nullable, struct buf *b) {
    add_key(b, "enum");
    for (const char *w = words; *w;) {
        size_t n = strcspn(w, "|");
        buf_addc(b, w == words ? '[' : ',');
        jw_str(b, (struct str){w, n});
        w += n + (w[n] == '|');
    }
    buf_addz(b, nullable ? ",null]" : "]");
}

/* add_kind: what a value of that kind may be, coercions included, without its range. */
static void add_kind(enum field_kind k, bool nullable, struct buf *b) {
    static const char *const types[] = {[FIELD_BOOL] = "\"boolean\",\"integer\",\"string\"",
                                        [FIELD_INT] = "\"integer\",\"string\",\"boolean\"",
                                        [FIELD_FLOAT] = "\"number\",\"string\",\"boolean\"",
                                        [FIELD_STR] = "\"string\"",
                                        [FIELD_LIST] = "\"array\"",
                                        [FIELD_OBJECT] = "\"object\""};
    if (k == FIELD_ANY)
        return;
    add_key(b, "type");
    buf_addf(b, "[%s%s]", types[k], nullable ? ",\"null\"" : "");
    if (k == FIELD_BOOL)
        buf_addz(b, ",\"minimum\":0,\"maximum\":1,\"pattern\":\"" OPENAPI_BOOL_PATTERN "\"");
    else if (k == FIELD_INT || k == FIELD_FLOAT)
        buf_addz(b, ",\"pattern\":\"" OPENAPI_NUMBER_PATTERN "\"");
    if (k == FIELD_INT)
        buf_addz(b, ",\"format\":\"int64\"");
}

static void add_ref(const char *name, struct buf *b) {
    buf_addf(b, "{\"$ref\":\"#/components/schemas/%s\"}", name);
}

/* add_elems: of a list the elements, of an object the members. */
static void add_elems(const struct field *f, struct buf *b) {
    add_key(b, f->kind == FIELD_LIST ? "items" : "additionalProperties");
    if (f->kind == FIELD_LIST && f->schema) {
        add_ref(f->schema, b);
        return;
    }
    buf_addc(b, '{');
    add_kind((enum field_kind)(f->elem - 1), false, b);
    buf_addc(b, '}');
}

static void add_read(const struct field *f, const struct router_limits *limits, struct buf *b) {
    bool list = f->kind == FIELD_LIST, number = f->kind == FIELD_INT || f->kind == FIELD_FLOAT;
    if (f->schema && !list) {
        add_key(b, "anyOf");
        buf_addc(b, '[');
        add_ref(f->schema, b);
        buf_addz(b, f->required ? "]" : ",{\"type\":\"null\"}]");
    } else {
        add_kind(f->kind, !f->required, b);
    }
    if (f->elem || (list && f->schema))
        add_elems(f, b);
    if (number) {
        add_range(f, limits, b);
    } else if (f->limit) {
        add_key(b, f->kind == FIELD_OBJECT ? "maxProperties" : "maxItems");
        jw_i64(b, api_field_max(f, limits));
    }
    if (f->some) {
        add_key(b, "minItems");
        buf_addc(b, '1');
    }
    if (f->words)
        add_words(f->words, !f->required, b);
}

/* add_refused: what passes of a field that this build lacks: null, and the neutral value with what is read as
 * it. */
static void add_refused(const struct field *f, struct buf *b) {
    json_t *neutral = json_loads(f->dflt, JSON_DECODE_ANY, NULL);
    add_key(b, "x-weir-refused");
    jw_bool(b, true);
    if (neutral && json_is_null(neutral)) {
        buf_addz(b, ",\"type\":\"null\"");
    } else if (f->kind == FIELD_BOOL || f->kind == FIELD_INT || f->kind == FIELD_FLOAT) {
        add_kind(f->kind, true, b); /* no keyword says which spellings are neutral */
    } else {
        CHECK(neutral);
        buf_addz(b, ",\"enum\":[null,");
        jw_json(b, neutral);
        buf_addc(b, ']');
    }
    json_decref(neutral);
}

/* describe: the meaning, and where a bound comes from. */
static void describe(const struct field *f, struct buf *b) {
    struct buf text = {0};
    if (f->rule == FIELD_REFUSED && !f->meaning)
        buf_addz(&text, "not supported in this build");
    else
        buf_addz(&text, f->meaning);
    if (f->flag)
        buf_addf(&text, " (bounded by %s)", f->flag);
    add_key(b, "description");
    jw_str(b, buf_str(&text));
    buf_fini(&text);
}

static void add_field(const struct field *f, const struct router_limits *limits, struct buf *b) {
    buf_addc(b, '{');
    describe(f, b);
    if (f->rule == FIELD_REFUSED)
        add_refused(f, b);
    else
        add_read(f, limits, b);
    json_t *dflt = json_loads(f->dflt, JSON_DECODE_ANY, NULL); /* best_of: n, which is no JSON */
    if (dflt && !f->required) {
        add_key(b, "default");
        jw_json(b, dflt);
    }
    json_decref(dflt);
    buf_addc(b, '}');
}

static void add_body(const struct op *op, const struct router_limits *limits, struct buf *b) {
    const char *comma = "";
    if (op->body) {
        buf_addf(b,
                 ",\"requestBody\":{\"required\":false,\"content\":{\"application/json\":{\"schema\":%s}}}",
                 op->body);
        return;
    }
    buf_addz(b, ",\"requestBody\":{\"required\":true,\"content\":{\"application/"
                "json\":{\"schema\":{\"type\":\"object\"");
    if (op->any_of) {
        add_key(b, "anyOf");
        buf_addz(b, op->any_of);
    }
    buf_addz(b, ",\"required\":[");
    for (size_t i = 0; i < n_api_fields; i++) {
        if (!(api_fields[i].on & op->on) || !api_fields[i].required)
            continue;
        buf_addf(b, "%s\"%s\"", comma, api_fields[i].name);
        comma = ",";
    }
    buf_addz(b, "],\"properties\":{");
    comma = "";
    for (size_t i = 0; i < n_api_fields; i++) {
        if (!(api_fields[i].on & op->on))
            continue;
        buf_addf(b, "%s\"%s\":", comma, api_fields[i].name);
        add_field(&api_fields[i], limits, b);
        comma = ",";
    }
    buf_addz(b, "}}}}}");
}

/* ---- answers ----------------------------------------------------------------------------------------- */

static void add_answer(const struct op *op, struct buf *b) {
    buf_addz(b, ",\"responses\":{\"200\":{\"description\":\"OK\"");
    if (op->id == ROUTE_METRICS)
        buf_addz(b, ",\"content\":{\"text/plain\":{\"schema\":{\"type\":\"string\"}}}");
    else if (op->id == ROUTE_PLAYGROUND)
        buf_addz(b, ",\"content\":{\"text/html\":{\"schema\":{\"type\":\"string\"}}}");
    else if (op->id == ROUTE_OPENAPI)
        buf_addz(b, ",\"content\":{\"application/json\":{\"schema\":{\"type\":\"object\"}}}");
    else if (op->answer) {
        buf_addz(b, ",\"content\":{\"application/json\":{\"schema\":");
        add_ref(op->answer, b);
        buf_addc(b, '}');
        if (op->chunk) {
            buf_addz(
                b,
                ",\"text/event-stream\":{\"schema\":{\"type\":\"object\",\"description\":\"with stream: each "
                "event; the last one is [DONE]\",\"required\":[\"data\"],\"properties\":{\"data\":{\"type\":"
                "\"string\",\"anyOf\":[{\"const\":\"[DONE]\"},{\"contentMediaType\":\"application/json\","
                "\"contentSchema\":{\"anyOf\":[");
            add_ref(op->chunk, b);
            buf_addz(b, "," REF("Error") "]}}]}}}}");
        }
        buf_addc(b, '}');
    }
    buf_addc(b, '}');
}

/* Which errors an operation may have: api.md 3.2. 405 and 417 come before there is an operation. */
static bool has_error(const struct op *op, bool open, int status) {
    switch (status) {
    case 401:
        return !open;
    case 404:
        return op->flags & GONE;
    case 413:
        return op->on || op->body;
    case 504:
        return op->on != 0;
    case 429:
        return op->flags & RETRY && (op->on || op->id == ROUTE_METRICS);
    case 503:
        return op->flags & RETRY;
    default:
        return true;
    }
}

static const struct {
    int status;
    const char *name, *when, *header;
} errors[] = {
    {400, "BadRequest", "malformed, or a field is invalid: `param` names it", NULL},
    {401, "Unauthorized", "no key, or a wrong one", "WWW-Authenticate"},
    {404, "NotFound", "no such model, or it is not made for this route", NULL},
    {413, "TooLarge", "the body is over --max-body-bytes", NULL},
    {429, "TooMany", "too many requests are waiting", "Retry-After"},
    {431, "HeadTooLarge", "the request line and headers are over --max-header-bytes or --max-header-count",
     NULL},
    {500, "Internal", "a fault of the server's", NULL},
    {503, "Unavailable", "no worker is ready, or the server is shutting down", "Retry-After"},
    {504, "Timeout", "--request-timeout has passed, or the worker has stopped answering", NULL},
};

static void add_errors(const struct op *op, bool open, struct buf *b) {
    for (size_t i = 0; i < ARRAY_LEN(errors); i++)
        if (has_error(op, open, errors[i].status))
            buf_addf(b, ",\"%d\":{\"$ref\":\"#/components/responses/%s\"}", errors[i].status, errors[i].name);
    buf_addc(b, '}');
}

static void add_responses(struct buf *b) {
    buf_addz(b, "\"responses\":{");
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        buf_addf(b, "%s\"%s\":{\"description\":\"%s: %s\"", i ? "," : "", errors[i].name,
                 api_error_type(errors[i].status), errors[i].when);
        if (errors[i].header)
            buf_addf(b, ",\"headers\":{\"%s\":{\"schema\":{\"type\":\"string\"}}}", errors[i].header);
        buf_addz(b, ",\"content\":{\"application/json\":{\"schema\":" REF("Error") "}}}");
    }
    buf_addc(b, '}');
}

/* ---- the document ------------------------------------------------------------------------------------ */

static void add_parameters(const struct op *op, struct buf *b) {
    buf_addz(b, ",\"parameters\":[{\"name\":\"X-Request-Id\",\"in\":\"header\",\"description\":\"with "
                "--enable-request-id-headers the answer has it, too\",\"schema\":" REF("RequestId") "}");
    if (op->id == ROUTE_MODEL)
        buf_addz(b, ",{\"name\":\"name\",\"in\":\"path\",\"required\":true,\"description\":\"served name; "
                    "slashes may be "
                    "written as they are\",\"schema\":{\"type\":\"string\",\"minLength\":1}}");
    if (op->id == ROUTE_HEALTH)
        buf_addz(
            b,
            ",{\"name\":\"probe\",\"in\":\"query\",\"description\":\"live: whether the server runs, whatever "
            "its workers do\",\"schema\":{\"type\":\"string\"}}");
    buf_addc(b, ']');
}

/* add_id: "post_v1_chat_completions". */
static void add_id(const char *method, const struct route *r, struct buf *b) {
    buf_addf(b, "\"operationId\":\"%s", method);
    for (const char *p = r->label; *p; p++)
        if (*p != '{' && *p != '}')
            buf_addc(b, (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') ? *p : '_');
    buf_addc(b, '"');
}

static void add_operation(const struct route *r, const struct op *op, const char *method,
                          const struct router_opts *o, struct buf *b) {
    bool open = auth_open(str_of(r->label), !o->metrics_auth);
    buf_addf(b, "\"%s\":{", method);
    add_id(method, r, b);
    buf_addf(b, ",\"tags\":[\"%s\"],\"summary\":\"%s\"", op->tag, op->summary);
    if (open)
        buf_addz(b, ",\"security\":[]");
    add_parameters(op, b);
    if (op->on || op->body)
        add_body(op, &o->limit, b);
    add_answer(op, b);
    add_errors(op, open, b);
    buf_addc(b, '}');
}

static void add_schemas(const struct openapi_part *parts, size_t n, const char *comma, struct buf *b) {
    for (size_t i = 0; i < n; i++, comma = ",")
        buf_addf(b, "%s\"%s\":%s", comma, parts[i].name, parts[i].json);
}

/* add_servers: every route answers with the prefix of --root-path and without it. */
static void add_servers(const char *root, struct buf *b) {
    struct str prefix = root ? str_of(root) : (struct str){0};
    while (prefix.n && *prefix.p == '/')
        prefix = (struct str){prefix.p + 1, prefix.n - 1};
    while (prefix.n && prefix.p[prefix.n - 1] == '/')
        prefix.n--;
    buf_addz(b, "\"servers\":[");
    if (prefix.n) {
        struct buf url = {0};
        buf_addf(&url, "/%.*s", (int)prefix.n, prefix.p);
        buf_addz(b, "{\"url\":");
        jw_str(b, buf_str(&url));
        buf_addz(b, "},");
        buf_fini(&url);
    }
    buf_addz(b, "{\"url\":\"/\"}]");
}

void api_openapi(const struct router_opts *o, struct buf *out) {
    const char *comma = "";
    bool keys = o->api_keys.n || o->api_key_file;
    buf_addz(out,
             "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"Weir\",\"version\":\"" WEIR_VERSION
             "\",\"description\":\"HEAD works wherever GET does. A path that is not here gets 404, another "
             "method on one that is 405 with Allow. Fields that no schema names are ignored.\"},");
    add_servers(o->root_path, out);
    buf_addf(out, ",\"security\":[{\"key\":[]}%s],\"paths\":{", keys ? "" : ",{}");
    for (size_t i = 0; i < n_routes; i++) {
        const struct route *r = &routes[i];
        const struct op *op = op_of(r);
        if (!op || !route_mounted(r, o))
            continue;
        buf_addf(out, "%s\"%s\":{", comma, r->label);
        if (r->methods & METHOD_GET)
            add_operation(r, op, "get", o, out);
        if (r->methods == (METHOD_GET | METHOD_POST))
            buf_addc(out, ',');
        if (r->methods & METHOD_POST)
            add_operation(r, op, "post", o, out);
        buf_addc(out, '}');
        comma = ",";
    }
    buf_addz(out, "},\"components\":{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\","
                  "\"description\":\"wanted if the server was started with keys\"}},");
    add_responses(out);
    buf_addz(out, ",\"schemas\":{");
    add_schemas(openapi_parts, n_openapi_parts, "", out);
    add_schemas(openapi_answers, n_openapi_answers, ",", out);
    buf_addz(out, "}}}");
}
