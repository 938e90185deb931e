/* mbox.h: a bounded mailbox: many threads post pointers, one thread takes them.
 *
 * Lock-free on the posting side while there is room. The taker is woken through an eventfd, at most once per
 * batch, so that it can wait in epoll, in an h2o loop or in mbox_wait.
 */
#ifndef WEIR_COMMON_MBOX_H
#define WEIR_COMMON_MBOX_H

#include "common/base.h"

struct mbox;

/* mbox_new: room for `capacity` messages, a power of two. */
struct mbox *mbox_new(size_t capacity);
/* mbox_free: messages still inside are the caller's business (take them first). */
void mbox_free(struct mbox *m);
/* mbox_post: any thread. False: full; the message stays the caller's. */
MUST_USE bool mbox_post(struct mbox *m, void *message);
/* mbox_take: the owner only. NULL: empty. In order of posting per poster. */
void *mbox_take(struct mbox *m);
/* mbox_fd: readable when messages may be there; the owner calls mbox_clear before it takes. */
int mbox_fd(const struct mbox *m);
void mbox_clear(struct mbox *m);
/* mbox_wait: the owner blocks until there is a message or timeout_ms passed (-1: no limit). False: timed out.
 */
bool mbox_wait(struct mbox *m, int timeout_ms);

#endif
