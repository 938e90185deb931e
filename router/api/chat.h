/* chat.h: messages to token ids: for /v1/chat/completions and the chat form of /tokenize, which must agree
 * (api.md 10.4.4).
 *
 * Two steps. chat_check needs no model and looks at shapes. chat_encode normalises the messages in place for
 * the model's template (api.md 7.2, 10.3), renders and tokenises, with everything the client wrote marked as
 * such. Any thread; one body belongs to one.
 */
#ifndef WEIR_ROUTER_API_CHAT_H
#define WEIR_ROUTER_API_CHAT_H

#include "common/arena.h"
#include "router/api/fields.h"
#include "router/api/model_info.h"

struct chat_input {
    json_t *messages;                   /* borrowed from the body; changed by chat_encode */
    json_t *documents, *kwargs, *tools; /* borrowed, or NULL */
    struct str reasoning_effort;        /* p NULL: none */
    struct str template;                /* chat_template; p NULL: the model's */
    bool add_generation_prompt, asks_generation_prompt; /* asks: the body says true */
    bool continue_final;
    bool add_special; /* the tokenizer adds BOS, unless the template wrote one */
};

/* chat_input_of: the fields of a chat body, with their defaults. */
struct chat_input chat_input_of(const struct field_values *v);
/* chat_check: RC_INVALID with the path of what is wrong. */
MUST_USE enum rc chat_check(const struct chat_input *in, const struct router_opts *o, struct err *e);

struct chat_times {
    uint64_t template_ns, tokenize_ns;
};
/* chat_encode: appends the prompt's ids; after chat_check said yes. a holds what the rendering needs.
 * With a template of the request it may take as long as the budgets of templates allow: not on a loop.
 * RC_INVALID: no template, a template that does not compile or says no, media the model does not take,
 * arguments that are no JSON object, a last message that cannot be continued. */
MUST_USE enum rc chat_encode(const struct model_info *m, const struct router_opts *o, struct chat_input *in,
                             struct arena *a, struct tok_ids *ids, struct chat_times *times, struct err *e);

#endif
