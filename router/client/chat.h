/* chat.h: the conversation of `weir chat`: messages, and one answer at a time. */
#ifndef WEIR_ROUTER_CLIENT_CHAT_H
#define WEIR_ROUTER_CLIENT_CHAT_H

#include "router/client/api.h"

enum { CHAT_ANSWER_BYTES_MAX = 16 << 20 };

struct chat {
    const struct target *target;
    const char *key, *model;
    double temperature;                /* NAN: the server's */
    int64_t n_max, timeout_ms;         /* tokens of an answer, 0: the server's */
    bool shows_thought;                /* reasoning is written too, dimmed */
    json_t *messages;                  /* [{role, content}], the system message first, if there is one */
    const volatile sig_atomic_t *stop; /* see exchange_run */
    sigset_t during;
    struct api_usage usage;     /* of the last answer */
    uint64_t first_ns, took_ns; /* to its first output (0: none), and in all */
};

void chat_init(struct chat *c);
void chat_fini(struct chat *c);
/* chat_system: sets the system message; the empty text takes it away. */
void chat_system(struct chat *c, struct str text);
/* chat_reset: forgets everything but the system message. */
void chat_reset(struct chat *c);
/* chat_ask: asks, writes the answer to standard output while it comes, and keeps both. RC_AGAIN: stopped;
 * what had come is kept. On other errors the question is forgotten. */
MUST_USE enum rc chat_ask(struct chat *c, struct str question, struct err *e);
/* chat_save: writes {"model", "messages"} to a file that only its owner can read. */
MUST_USE enum rc chat_save(const struct chat *c, const char *path, struct err *e);

#endif
