#include "common/mbox.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"

/* A ring of slots, each with a ticket: slot i of round r is free for the poster when ticket == r*cap + i and
 * filled for the taker when ticket == r*cap + i + 1. A poster claims a place by moving `tail`, writes the
 * message, then publishes the ticket; a slow poster therefore holds back only those behind it. */
struct slot {
    _Atomic size_t ticket;
    void *message;
};

struct mbox {
    size_t mask;
    int fd;
    _Alignas(64) _Atomic size_t tail; /* posters */
    _Alignas(64) size_t head;         /* the taker's own */
    _Alignas(64) _Atomic int woken;   /* 1: the eventfd was written since the last clear */
    struct slot slots[];
};

struct mbox *mbox_new(size_t capacity) {
    CHECK(capacity >= 2 && (capacity & (capacity - 1)) == 0 && capacity <= (size_t)1 << 30);
    size_t n = sizeof(struct mbox) + capacity * sizeof(struct slot);
    struct mbox *m = aligned_alloc(64, (n + 63) & ~(size_t)63);
    CHECK(m);
    m->mask = capacity - 1;
    m->head = 0;
    atomic_init(&m->tail, 0);
    atomic_init(&m->woken, 0);
    for (size_t i = 0; i < capacity; i++)
        atomic_init(&m->slots[i].ticket, i);
    m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(m->fd >= 0);
    return m;
}

void mbox_free(struct mbox *m) {
    if (!m)
        return;
    close(m->fd);
    free(m);
}

static void wake(struct mbox *m) {
    /* Whoever turns woken from 0 to 1 writes; the others know that the taker will come. Release: the ticket
     * published before is seen by the taker whose clear reads this 1. */
    if (atomic_exchange_explicit(&m->woken, 1, memory_order_acq_rel) != 0)
        return;
    uint64_t one = 1;
    while (write(m->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

bool mbox_post(struct mbox *m, void *message) {
    CHECK(message);
    size_t at = atomic_load_explicit(&m->tail, memory_order_relaxed);
    struct slot *s;
    for (;;) {
        s = &m->slots[at & m->mask];
        size_t ticket = atomic_load_explicit(&s->ticket, memory_order_acquire);
        intptr_t ahead = (intptr_t)(ticket - at);
        if (ahead == 0) {
            if (atomic_compare_exchange_weak_explicit(&m->tail, &at, at + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                break;
        } else if (ahead < 0) {
            return false; /* still holds the message of the round before */
        } else {
            at = atomic_load_explicit(&m->tail, memory_order_relaxed);
        }
    }
    s->message = message;
    atomic_store_explicit(&s->ticket, at + 1, memory_order_release);
    wake(m);
    return true;
}

static bool is_filled(struct mbox *m) {
    return atomic_load_explicit(&m->slots[m->head & m->mask].ticket, memory_order_acquire) == m->head + 1;
}

void *mbox_take(struct mbox *m) {
    if (!is_filled(m))
        return NULL;
    struct slot *s = &m->slots[m->head & m->mask];
    void *message = s->message;
    atomic_store_explicit(&s->ticket, m->head + m->mask + 1, memory_order_release);
    m->head++;
    return message;
}

int mbox_fd(const struct mbox *m) {
    return m->fd;
}

void mbox_clear(struct mbox *m) {
    uint64_t n;
    while (read(m->fd, &n, sizeof n) < 0 && errno == EINTR)
        ;
    /* After the read: a post from now on writes again; one that found 1 before is visible to the takes to
     * come. */
    atomic_exchange_explicit(&m->woken, 0, memory_order_acq_rel);
}

bool mbox_wait(struct mbox *m, int timeout_ms) {
    uint64_t end_ns = timeout_ms < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    while (!is_filled(m)) {
        mbox_clear(m);
        if (is_filled(m))
            return true;
        int left_ms = -1;
        if (timeout_ms >= 0) {
            uint64_t now = clock_ns();
            if (now >= end_ns)
                return false;
            left_ms = (int)((end_ns - now + NS_PER_MS - 1) / NS_PER_MS);
        }
        struct pollfd p = {.fd = m->fd, .events = POLLIN};
        int rc = poll(&p, 1, left_ms);
        CHECK(rc >= 0 || errno == EINTR);
    }
    return true;
}
