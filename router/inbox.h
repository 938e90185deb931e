/* inbox.h: the way into a loop: any thread posts, the loop's thread takes everything at once.
 *
 * The descriptor is written to only while the owner sleeps, or is about to; awake, it looks into the inbox by
 * itself before it sleeps again.
 *
 * Messages are linked through themselves, so a post never fails and never allocates. What bounds them is
 * their number: each one belongs to something bounded (one job and one ticket a session, one notice a lost
 * worker) except outputs of workers, which are counted per loop and cut their worker above LOOP_BATCHES_MAX
 * (loop.h). A bounded ring (common/mbox.h) would make every post a place that can fail halfway through a
 * hand-over, which is why loops do not use one.
 *
 * Threads: inbox_post from any, the rest from the owner only. Order is kept per poster.
 */
#ifndef WEIR_ROUTER_INBOX_H
#define WEIR_ROUTER_INBOX_H

#include "common/base.h"

struct loop;

/* A message is a piece of work for a loop. The loop calls step until it says true; each call does a little
 * (some microseconds), so that a long piece shares the loop with everything else. After true the message is
 * the callee's to free. */
struct loop_msg {
    struct loop_msg *next;
    bool (*step)(struct loop *l, struct loop_msg *m);
};

struct inbox {
    _Atomic(struct loop_msg *) head; /* newest first */
    _Atomic bool asleep;
    int fd; /* eventfd */
};

void inbox_init(struct inbox *b);
void inbox_fini(struct inbox *b); /* must be empty */
void inbox_post(struct inbox *b, struct loop_msg *m);
/* inbox_take: all messages, oldest first, linked through next. NULL: none. */
struct loop_msg *inbox_take(struct inbox *b);
/* inbox_sleep: the owner is going to wait for fd. False: there are messages; it must not. */
bool inbox_sleep(struct inbox *b);
/* inbox_awake: it has waited. */
void inbox_awake(struct inbox *b);
/* inbox_clear: makes fd unreadable; call it before inbox_take. */
void inbox_clear(struct inbox *b);
/* inbox_wake: makes fd readable without a message. */
void inbox_wake(struct inbox *b);

#endif
