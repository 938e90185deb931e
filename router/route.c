#include "router/route.h"

#include "router/opts.h"

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
    R("/openapi.json", ROUTE_OPENAPI, METHOD_GET, ROUTE_DOCS),
    R("/tokenizer_info", ROUTE_TOKENIZER_INFO, METHOD_GET, ROUTE_TOKENIZER_FLAG),
    R("/", ROUTE_PLAYGROUND, METHOD_GET, ROUTE_PAGE),
    R("/abort_requests", ROUTE_ABORT, METHOD_POST, ROUTE_ADMIN),
    R("/reset_prefix_cache", ROUTE_RESET, METHOD_POST, ROUTE_ADMIN),
    R("/debug/requests", ROUTE_REQUESTS, METHOD_GET, ROUTE_ADMIN | ROUTE_QUIET),
    R("/weir/workers", ROUTE_WORKERS, METHOD_GET, ROUTE_ADMIN | ROUTE_QUIET),
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

enum rc route_root(const char *given, char **out, struct err *e) {
    struct str s = str_of(given);
    struct buf b = {0};
    while (s.n && *s.p == '/')
        s.p++, s.n--;
    while (s.n && s.p[s.n - 1] == '/')
        s.n--;
    if (s.n)
        buf_addc(&b, '/');
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool doubled = c == '/' && s.p[i - 1] == '/';
        if ((!plain && !strchr("-._~/", c)) || doubled) {
            buf_fini(&b);
            return err_set(e, RC_INVALID, "root-path",
                           "--root-path takes a path like /api, of letters, digits and -._~");
        }
        buf_addc(&b, c);
    }
    *out = buf_take(&b);
    return RC_OK;
}

struct str route_strip(struct str path, struct str root) {
    if (root.n && path.n > root.n && path.p[root.n] == '/' && str_starts(path, root))
        return (struct str){path.p + root.n, path.n - root.n};
    return path;
}

bool route_mounted(const struct route *r, const struct router_opts *o) {
    unsigned off = (o->no_docs ? ROUTE_DOCS : 0u) | (o->tokenizer_info ? 0u : ROUTE_TOKENIZER_FLAG) |
                   (o->admin_api ? 0u : ROUTE_ADMIN) | (o->no_playground ? ROUTE_PAGE : 0u);
    return !(r->flags & off);
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
