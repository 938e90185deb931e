#include "router/inbox.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

void inbox_init(struct inbox *b) {
    atomic_init(&b->head, NULL);
    atomic_init(&b->asleep, false);
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(b->fd >= 0);
}

void inbox_fini(struct inbox *b) {
    CHECK(atomic_load(&b->head) == NULL);
    if (b->fd >= 0)
        close(b->fd);
    b->fd = -1;
}

void inbox_wake(struct inbox *b) {
    uint64_t one = 1;
    /* EAGAIN means that the counter is full, so the descriptor is readable anyway. */
    ssize_t n;
    do
        n = write(b->fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void inbox_post(struct inbox *b, struct loop_msg *m) {
    struct loop_msg *head = atomic_load_explicit(&b->head, memory_order_relaxed);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak_explicit(&b->head, &head, m, memory_order_seq_cst,
                                                  memory_order_relaxed));
    /* In one order for all: either this sees that the owner sleeps, or the owner's inbox_sleep sees m. */
    if (atomic_load(&b->asleep) && atomic_exchange(&b->asleep, false))
        inbox_wake(b);
}

bool inbox_sleep(struct inbox *b) {
    atomic_store(&b->asleep, true);
    if (atomic_load(&b->head) == NULL)
        return true;
    inbox_awake(b);
    return false;
}

void inbox_awake(struct inbox *b) {
    atomic_store_explicit(&b->asleep, false, memory_order_relaxed);
}

struct loop_msg *inbox_take(struct inbox *b) {
    if (atomic_load_explicit(&b->head, memory_order_relaxed) == NULL)
        return NULL;
    struct loop_msg *m = atomic_exchange_explicit(&b->head, NULL, memory_order_acquire), *first = NULL;
    while (m) {
        struct loop_msg *next = m->next;
        m->next = first;
        first = m;
        m = next;
    }
    return first;
}

void inbox_clear(struct inbox *b) {
    uint64_t n;
    while (read(b->fd, &n, sizeof n) < 0 && errno == EINTR)
        ;
}
