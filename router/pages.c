#include "router/pages.h"

#include "common/version.h"
#include "router/reply.h"
#include "router/session.h"
#include "router/ui/page.h"

void page_health(h2o_req_t *req, struct str suffix) {
    struct router *r = loop_of(req)->router;
    char why[400];
    struct str query = {0};
    if (req->query_at != SIZE_MAX)
        query = (struct str){req->path.base + req->query_at + 1, req->path.len - req->query_at - 1};
    bool live = str_eqz(query, "probe=live");
    if (live || (!atomic_load(&r->draining) && fleet_health(r->fleet, why, sizeof why))) {
        reply_empty(req, 200, suffix);
        return;
    }
    struct err e;
    session_unavailable(r, &e);
    reply_error(req, &e, 5, suffix);
}

void page_models(h2o_req_t *req, struct str suffix) {
    struct model_info *m[FLEET_MODELS_MAX];
    size_t n = fleet_models(loop_of(req)->router->fleet, m, ARRAY_LEN(m));
    struct buf b = {0};
    bool any = false;
    buf_addz(&b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < m[i]->facts.n_names; k++) {
            const char *name = m[i]->facts.names[k];
            bool seen = false; /* an older revision of the same name */
            for (size_t j = 0; j < i && !seen; j++)
                seen = model_info_serves(m[j], str_of(name));
            if (seen)
                continue;
            if (any)
                buf_addc(&b, ',');
            any = true;
            api_model_card(m[i], name, &b);
        }
    }
    buf_addz(&b, "]}");
    for (size_t i = 0; i < n; i++)
        model_info_drop(m[i]);
    reply_json(req, 200, &b, suffix);
}

void page_model(h2o_req_t *req, const struct route *route, struct str path, struct str suffix) {
    struct buf name = {0}, b = {0};
    struct model_info *m = NULL;
    bool serving;
    struct err e;
    if (route_name(route, path, &name))
        m = fleet_find_model(loop_of(req)->router->fleet, buf_str(&name), &serving);
    if (m) {
        api_model_card(m, buf_cstr(&name), &b);
        model_info_drop(m);
        reply_json(req, 200, &b, suffix);
    } else {
        err_set(&e, RC_NOT_FOUND, "model", "The model '%.*s' does not exist", (int)MIN(name.len, 200),
                name.data ? name.data : "");
        reply_error(req, &e, 0, suffix);
    }
    buf_fini(&name);
}

void page_load(h2o_req_t *req, struct str suffix) {
    struct buf b = {0};
    buf_addf(&b, "{\"server_load\":%u}", atomic_load(&loop_of(req)->router->n_inference));
    reply_json(req, 200, &b, suffix);
}

void page_version(h2o_req_t *req, struct str suffix) {
    struct buf b = {0};
    buf_addz(&b, "{\"version\":\"" WEIR_VERSION "\"}");
    reply_json(req, 200, &b, suffix);
}

void page_tokenizer_info(h2o_req_t *req, struct str suffix) {
    struct model_info *m;
    struct err e;
    if (!fleet_models(loop_of(req)->router->fleet, &m, 1)) {
        session_unavailable(loop_of(req)->router, &e);
        reply_error(req, &e, 5, suffix);
        return;
    }
    struct buf b = {0};
    buf_addz(&b, m->tokenizer_info);
    model_info_drop(m);
    reply_json(req, 200, &b, suffix);
}

void page_playground(h2o_req_t *req, struct str suffix) {
    struct buf b = {0};
    buf_add_str(&b, page_html());
    reply_header(req, "content-security-policy", str_of(page_policy()));
    reply_header(req, "x-content-type-options", STR_LIT("nosniff"));
    reply_header(req, "referrer-policy", STR_LIT("no-referrer"));
    reply_header(req, "cache-control", STR_LIT("no-cache"));
    reply_body(req, 200, "text/html; charset=utf-8", &b, suffix);
}
