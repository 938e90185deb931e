#include "worker/ring.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"

enum { SPIN_NS = 20000, SPINS_PER_CLOCK = 32, NAP_NS = 100000000 };

/* mark: a count of words, and how many sleep until it moves on. It wraps around; differences hold. A waiter
 * names itself before it sleeps; whoever moves the count looks there afterwards. */
struct mark {
    _Alignas(64) _Atomic uint32_t count;
    _Atomic uint32_t n_asleep;
};

struct ring_shared {
    struct mark written;
    struct mark read[RING_READERS_MAX];
};

size_t ring_bytes(uint32_t n_words) {
    return sizeof(struct ring_shared) + n_words * sizeof(uint32_t);
}

void ring_init(struct ring *r, void *memory, uint32_t n_words, uint32_t n_readers, const uint32_t *stop,
               bool may_spin) {
    CHECK((uintptr_t)memory % 64 == 0 && n_words && (n_words & (n_words - 1)) == 0);
    CHECK(n_readers >= 1 && n_readers <= RING_READERS_MAX);
    struct ring_shared *s = memory;
    *r = (struct ring){.s = s,
                       .data = (void *)(s + 1),
                       .n_words = n_words,
                       .n_readers = n_readers,
                       .stop = stop,
                       .may_spin = may_spin};
}

static void move(struct mark *m, uint32_t n) {
    atomic_fetch_add(&m->count, n);
    if (atomic_load(&m->n_asleep) > 0)
        syscall(SYS_futex, &m->count, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* await: until the mark is no longer at `seen`. false: stopped. */
static bool await(const struct ring *r, struct mark *m, uint32_t seen) {
    const struct timespec nap = {0, NAP_NS};
    bool moved;
    for (uint64_t until = 0; r->may_spin;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&m->count, memory_order_acquire) != seen)
                return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        uint64_t t = clock_ns();
        if (!until)
            until = t + SPIN_NS;
        else if (t > until)
            break;
    }
    atomic_fetch_add(&m->n_asleep, 1);
    while (!(moved = atomic_load(&m->count) != seen) && !__atomic_load_n(r->stop, __ATOMIC_ACQUIRE))
        syscall(SYS_futex, &m->count, FUTEX_WAIT, seen, &nap, NULL, 0);
    atomic_fetch_sub(&m->n_asleep, 1);
    return moved;
}

/* room: words that every reader has read; *slowest: the one that has read least, and where it is. */
static uint32_t room(const struct ring *r, struct mark **slowest, uint32_t *seen) {
    uint32_t head = atomic_load_explicit(&r->s->written.count, memory_order_relaxed), most = 0;
    for (uint32_t i = 0; i < r->n_readers; i++) {
        uint32_t at = atomic_load_explicit(&r->s->read[i].count, memory_order_acquire);
        if (i == 0 || head - at > most) {
            most = head - at;
            *slowest = &r->s->read[i];
            *seen = at;
        }
    }
    CHECK(most <= r->n_words);
    return r->n_words - most;
}

bool ring_write(struct ring *r, const uint32_t *words, size_t n) {
    while (n > 0) {
        struct mark *slowest = NULL;
        uint32_t seen = 0, free_words = room(r, &slowest, &seen);
        if (free_words == 0) {
            if (!await(r, slowest, seen))
                return false;
            continue;
        }
        uint32_t at = atomic_load_explicit(&r->s->written.count, memory_order_relaxed) & (r->n_words - 1);
        uint32_t take = (uint32_t)MIN(n, (size_t)MIN(free_words, r->n_words - at));
        memcpy(r->data + at, words, take * sizeof *words);
        move(&r->s->written, take);
        words += take;
        n -= take;
    }
    return true;
}

bool ring_read(struct ring *r, uint32_t reader, uint32_t *words, size_t n) {
    CHECK(reader < r->n_readers);
    struct mark *mine = &r->s->read[reader];
    while (n > 0) {
        uint32_t tail = atomic_load_explicit(&mine->count, memory_order_relaxed);
        uint32_t head = atomic_load_explicit(&r->s->written.count, memory_order_acquire);
        if (head == tail) {
            if (!await(r, &r->s->written, head))
                return false;
            continue;
        }
        uint32_t at = tail & (r->n_words - 1);
        uint32_t take = (uint32_t)MIN(n, (size_t)MIN(head - tail, r->n_words - at));
        memcpy(words, r->data + at, take * sizeof *words);
        move(mine, take);
        words += take;
        n -= take;
    }
    return true;
}
