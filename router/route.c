#include "router/route.h"

#define R(path_, id_, methods_, flags_)                                                                      \
    {                                                                                                        \
        .path = {path_, sizeof(path_) - 1}, .id = (id_), .methods = (methods_), .flags = (flags_),           \
        .label = (path_)                                                                                     \
    }
#define LATER(path_, methods_) R(path_, ROUTE_NOT_BUILT, methods_, 0)

const struct route routes[] = {
    R("/v1/chat/completions", ROUTE_CHAT, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/v1/completions", ROUTE_COMPLETIONS, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/tokenize", ROUTE_TOKENIZE, METHOD_POST, ROUTE_JSON),
    R("/detokenize", ROUTE_DETOKENIZE, METHOD_POST, ROUTE_JSON),
    R("/v1/models", ROUTE_MODELS, METHOD_GET, 0),
    {.path = {"/v1/models/", 11},
     .id = ROUTE_MODEL,
     .methods = METHOD_GET,
     .flags = ROUTE_PREFIX,
     .label = "/v1/models/{name}"},
    R("/health", ROUTE_HEALTH, METHOD_GET, ROUTE_QUIET),
    R("/readyz", ROUTE_HEALTH, METHOD_GET, ROUTE_QUIET),
    R("/livez", ROUTE_LIVEZ, METHOD_GET, ROUTE_QUIET),
    R("/ping", ROUTE_PING, METHOD_GET | METHOD_POST, ROUTE_QUIET),
    R("/version", ROUTE_VERSION, METHOD_GET, ROUTE_QUIET),
    R("/metrics", ROUTE_METRICS, METHOD_GET, ROUTE_QUIET),
    R("/load", ROUTE_LOAD, METHOD_GET, ROUTE_QUIET),
    R("/v1/embeddings", ROUTE_EMBEDDINGS, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/pooling", ROUTE_POOLING, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/classify", ROUTE_CLASSIFY, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/score", ROUTE_SCORE, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/v1/score", ROUTE_SCORE, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/rerank", ROUTE_RERANK, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/v1/rerank", ROUTE_RERANK, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    R("/v2/rerank", ROUTE_RERANK, METHOD_POST, ROUTE_JSON | ROUTE_INFERENCE),
    LATER("/v1/audio/transcriptions", METHOD_POST),
    LATER("/v1/audio/translations", METHOD_POST),
    R("/openapi.json", ROUTE_OPENAPI, METHOD_GET, 0),
};
const size_t n_routes = ARRAY_LEN(routes);

const struct route *route_find(struct str path) {
    for (size_t i = 0; i < n_routes; i++) {
        const struct route *r = &routes[i];
        if (r->flags & ROUTE_PREFIX ? path.n > r->path.n && str_starts(path, r->path) : str_eq(path, r->path))
            return r;
    }
    return NULL;
}

unsigned route_method(struct str m) {
    if (str_eqz(m, "POST"))
        return METHOD_POST;
    if (str_eqz(m, "GET") || str_eqz(m, "HEAD"))
        return METHOD_GET;
    return 0;
}

const char *route_allow(const struct route *r) {
    switch (r->methods) {
    case METHOD_GET:
        return "GET, HEAD, OPTIONS";
    case METHOD_POST:
        return "POST, OPTIONS";
    default:
        return "GET, HEAD, POST, OPTIONS";
    }
}

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool route_name(const struct route *r, struct str path, struct buf *out) {
    CHECK(r->flags & ROUTE_PREFIX && path.n > r->path.n);
    for (size_t i = r->path.n; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%') {
            if (path.n - i < 3)
                return false;
            int hi = hex(path.p[i + 1]), lo = hex(path.p[i + 2]);
            if (hi < 0 || lo < 0)
                return false;
            c = (char)(hi << 4 | lo);
            i += 2;
        }
        if (c == '\0')
            return false;
        buf_addc(out, c);
    }
    return true;
}
