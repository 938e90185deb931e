/* chat_continue.h: continue_final_message (api.md 10.4.2): where the last message's content ends in what a
 * template makes of it.
 *
 * The content cannot just be looked for: "e" is in "<|end|>", too. So a word that nobody can guess is put
 * behind it before rendering, with a space behind that: where the word is, the content ends, and where the
 * space is gone, the template strips. The word is digits, which templates that change case or escape leave
 * alone. It never reaches the prompt: it is cut out wherever it was written, and everything from its last
 * place on is dropped. One request, one thread.
 */
#ifndef WEIR_ROUTER_API_CHAT_CONTINUE_H
#define WEIR_ROUTER_API_CHAT_CONTINUE_H

#include "common/json.h"
#include "router/tmpl/tmpl.h"

enum { CONTINUE_WORD_BYTES = 32 };
struct chat_continue {
    char word[CONTINUE_WORD_BYTES + 1]; /* digits, then a space */
    struct str content;                 /* borrowed from the messages */
};

/* chat_continue_mark: puts the word behind the text of the last message, or of its last text part. messages
 * are as messages_normalise left them, not empty. */
void chat_continue_mark(struct chat_continue *c, json_t *messages);
/* chat_continue_cut: makes the rendering end where that content ends. RC_INVALID: it is not there, or not as
 * it was. */
MUST_USE enum rc chat_continue_cut(const struct chat_continue *c, struct tmpl_out *out, struct err *e);

#endif
