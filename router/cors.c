#include "router/cors.h"

#include <stdlib.h>

enum { ITEMS_MAX = 256, ITEM_BYTES_MAX = 512, ASKED_BYTES_MAX = 4096 };

/* A list of a flag: every one, or these; text is the list as a header has it. */
struct list {
    bool all;
    char *items[ITEMS_MAX];
    size_t n;
    struct buf text;
};
struct cors {
    struct list origins, methods, headers;
    bool credentials;
};

/* ---- flags ------------------------------------------------------------------------------------------- */

static bool is_visible(struct str s, size_t n_max) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x21 || s.p[i] > 0x7e || s.p[i] == ',')
            return false;
    }
    return s.n > 0 && s.n <= n_max;
}

static enum rc list_read(struct list *l, const char *flag, const char *text, struct err *e) {
    json_t *v = NULL;
    struct err why;
    if (!text) {
        l->all = true;
        return RC_OK;
    }
    enum rc rc = json_parse(str_of(text), &json_limits_default, &v, &why);
    if (rc != RC_OK || !json_is_array(v) || json_array_size(v) > ITEMS_MAX)
        rc = err_set(e, RC_INVALID, flag, "--%s takes a JSON list of at most %d strings", flag, ITEMS_MAX);
    for (size_t i = 0; rc == RC_OK && i < json_array_size(v); i++) {
        const json_t *item = json_array_get(v, i);
        struct str s = {json_string_value(item), json_string_length(item)};
        if (!json_is_string(item) || !is_visible(s, ITEM_BYTES_MAX)) {
            rc = err_set(e, RC_INVALID, flag, "--%s: item %zu is no name that a header can carry", flag, i);
            break;
        }
        l->all = l->all || str_eqz(s, "*");
        l->items[l->n++] = xstrndup(s.p, s.n);
        if (l->text.len)
            buf_addz(&l->text, ", ");
        buf_add_str(&l->text, s);
    }
    json_decref(v);
    return rc;
}

static void list_fini(struct list *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    buf_fini(&l->text);
}

enum rc cors_new(struct cors **out, const struct router_opts *o, struct err *e) {
    struct cors *c = xcalloc(1, sizeof *c);
    c->credentials = o->allow_credentials;
    enum rc rc = list_read(&c->origins, "allowed-origins", o->allowed_origins, e);
    if (rc == RC_OK)
        rc = list_read(&c->methods, "allowed-methods", o->allowed_methods, e);
    if (rc == RC_OK)
        rc = list_read(&c->headers, "allowed-headers", o->allowed_headers, e);
    if (rc == RC_OK)
        *out = c;
    else
        cors_free(c);
    return rc;
}

void cors_free(struct cors *c) {
    if (!c)
        return;
    list_fini(&c->origins);
    list_fini(&c->methods);
    list_fini(&c->headers);
    free(c);
}

/* ---- requests ---------------------------------------------------------------------------------------- */

struct str cors_allow(const struct cors *c, struct str origin) {
    if (!is_visible(origin, ITEM_BYTES_MAX))
        return (struct str){0};
    if (c->origins.all)
        return c->credentials ? origin : STR_LIT("*");
    for (size_t i = 0; i < c->origins.n; i++) {
        if (str_eqz(origin, c->origins.items[i]))
            return origin;
    }
    return (struct str){0};
}

bool cors_varies(const struct cors *c) {
    return c->credentials || !c->origins.all;
}

bool cors_credentials(const struct cors *c) {
    return c->credentials;
}

struct str cors_methods(const struct cors *c) {
    return c->methods.all ? STR_LIT("GET, HEAD, POST, OPTIONS") : buf_str(&c->methods.text);
}

/* is_name_list: header names, commas and blanks, and nothing that could end a line or a value. */
static bool is_name_list(struct str s) {
    for (size_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool name = (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z');
        if (!name && (ch == '\0' || !strchr("!#$%&'*+-.^_`|~, \t", ch)))
            return false;
    }
    return s.n > 0 && s.n <= ASKED_BYTES_MAX;
}

struct str cors_headers(const struct cors *c, struct str asked) {
    if (!c->headers.all)
        return buf_str(&c->headers.text);
    return is_name_list(asked) ? asked : (struct str){0};
}
