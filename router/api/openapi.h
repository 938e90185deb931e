/* openapi.h: GET /openapi.json (api.md 4.3): an OpenAPI 3.1 document made from the tables that the server works
 * with: routes (route.h) and fields (fields.h). Only what no table says is written out here: the shapes of nested
 * values (openapi_parts.c) and of answers (openapi_answers.c).
 *
 * A field's schema says what 2.3.6 accepts, coercions included, as far as JSON Schema can say it: where it cannot
 * (the range of a number in a string; what depends on another field or on the model), the schema accepts more than
 * the server, never less. Pure; any thread.
 */
#ifndef WEIR_ROUTER_API_OPENAPI_H
#define WEIR_ROUTER_API_OPENAPI_H

#include "common/buf.h"
#include "router/opts.h"

/* api_openapi: appends the document. */
void api_openapi(const struct router_opts *o, struct buf *out);

/* ---- inside the document's files --------------------------------------------------------------------- */

/* A part of components/schemas, as JSON text. */
struct openapi_part {
    const char *name, *json;
};
extern const struct openapi_part openapi_parts[], openapi_answers[];
extern const size_t n_openapi_parts, n_openapi_answers;

/* OPENAPI_JSON: its argument as text, so that JSON is written as it is read: nothing is expanded in it. */
#define OPENAPI_JSON(...) #__VA_ARGS__

/* A number in a string, and the words of a boolean, as the getters of common/json.h read them. */
#define OPENAPI_NUMBER_PATTERN "^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?$"
#define OPENAPI_BOOL_PATTERN                                                                                 \
    "^([tT]([rR][uU][eE])?|[yY]([eE][sS])?|[oO][nN]|1|[fF]([aA][lL][sS][eE])?|[nN][oO]?|[oO][fF][fF]|0)$"

#endif
