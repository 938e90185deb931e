/* messages.h: the messages of a conversation: their shape (api.md 7.2) and what a template gets to see of
 * them (10.3). */
#ifndef WEIR_ROUTER_API_MESSAGES_H
#define WEIR_ROUTER_API_MESSAGES_H

#include "common/json.h"
#include "router/opts.h"

/* messages_check: of objects: roles, kinds of content, parts and tool calls. RC_INVALID with the path. */
MUST_USE enum rc messages_check(const json_t *messages, struct err *e);

struct messages_form {
    const char *model_name;   /* for messages of errors */
    bool openai;              /* content as a list of parts; else as a string */
    bool developer_is_system; /* the template does not know the role */
    struct json_limits args;  /* for the arguments of tool calls, over all of them */
};
/* messages_normalise: rewrites messages, which messages_check accepted, in place. RC_INVALID: media, or
 * arguments that are no JSON object. */
MUST_USE enum rc messages_normalise(json_t *messages, const struct messages_form *form, struct err *e);

#endif
