/* tp_rank.c: a rank that follows: its seat in the shared memory, and the messages of rank 0. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "worker/tp_far.h"

struct tp_rank {
    struct tp_shared *s;
    struct tp_seat *seat;
    struct be_group *group;
    struct ring ring;
    size_t bytes;
    uint32_t rank;
    uint32_t *words; /* [n_words] the last message */
    size_t n_words;
    struct tp_far_rank *far; /* rank 0 is on another host; then there are only words and this. NULL: it is here */
};

/* heart: beats, and ends the process when rank 0 is gone or the group is over. The compute thread may be
 * waiting for others then, so the process ends at once; it has nothing to save. */
static void *heart(void *arg) {
    struct tp_rank *r = arg;
    for (;;) {
        struct pollfd p = {.fd = TP_FD_LEADER, .events = POLLIN};
        struct timespec cpu;
        poll(&p, 1, TP_BEAT_MS);
        if (p.revents || __atomic_load_n(&r->group->failed, __ATOMIC_ACQUIRE))
            _exit(1);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
        atomic_store(&r->seat->cpu_ns, (uint64_t)cpu.tv_sec * NS_PER_S + (uint64_t)cpu.tv_nsec);
        atomic_fetch_add(&r->seat->beat, 1);
    }
    return NULL;
}

static enum rc not_ours(struct err *e) {
    return err_set(e, RC_INVALID, "rank",
                   "--rank is for the ranks that weir-worker starts itself: give it "
                   "--tensor-parallel-size");
}

enum rc tp_join(struct tp_rank **out, uint32_t rank, uint32_t n_ranks, struct err *e) {
    struct stat st, pipe_st;
    pthread_t thread;
    if (fstat(TP_FD_MEMORY, &st) || fstat(TP_FD_LEADER, &pipe_st) || !S_ISREG(st.st_mode) ||
        !S_ISFIFO(pipe_st.st_mode) || (uint64_t)st.st_size < sizeof(struct tp_shared))
        return not_ours(e);
    struct tp_shared *s =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, TP_FD_MEMORY, 0);
    if (s == MAP_FAILED)
        return not_ours(e);
    uint64_t ring_end = s->ring_at + ring_bytes(TP_RING_WORDS), size = (uint64_t)st.st_size;
    bool room = s->move_at >= ring_end && s->move_at <= s->group_at && s->move_bytes <= s->group_at - s->move_at;
    if (s->magic != TP_MAGIC || s->n_ranks != n_ranks || rank == 0 || rank >= s->n_local || s->n_local > n_ranks ||
        n_ranks > BE_RANKS_MAX || s->bytes != size || s->ring_at % 64 || s->group_at % 64 ||
        s->ring_at < sizeof *s || s->ring_at > size || !room || s->group_at > size ||
        size - s->group_at < sizeof(struct be_group)) {
        munmap(s, (size_t)st.st_size);
        return not_ours(e);
    }
    close_range(TP_FD_FREE, ~0u, 0); /* rank 0's connections are not for this process to keep open */
    struct tp_rank *r = xcalloc(1, sizeof *r);
    r->s = s;
    r->bytes = (size_t)size;
    r->rank = rank;
    r->seat = &s->seats[rank];
    r->group = (struct be_group *)(void *)((uint8_t *)s + s->group_at);
    ring_init(&r->ring, (uint8_t *)s + s->ring_at, TP_RING_WORDS, s->n_local - 1, &r->group->failed,
              s->may_spin != 0);
    errno = pthread_create(&thread, NULL, heart, r);
    if (errno)
        return err_io(e, "no thread for a rank's heart");
    pthread_detach(thread);
    *out = r;
    return RC_OK;
}

enum rc tp_join_far(struct tp_rank **out, const struct tp_far_config *c, uint32_t rank, struct err *e) {
    struct tp_far_rank *far;
    enum rc rc = tp_far_join(&far, c, rank, TP_SILENT_MS, e);
    if (rc != RC_OK)
        return rc;
    struct tp_rank *r = xcalloc(1, sizeof *r);
    r->far = far;
    r->rank = rank;
    *out = r;
    return RC_OK;
}

const struct be_far *tp_rank_far(struct tp_rank *r) {
    return r->far ? tp_far_meets(r->far) : NULL;
}

enum rc tp_rank_group(struct tp_rank *r, size_t group_bytes, struct be_group **out, struct err *e) {
    if (r->far) {
        struct be_group *own = tp_far_group(r->far, group_bytes);
        if (!own)
            return err_set(e, RC_IO, NULL, "no memory of %zu bytes for what the ranks do together", group_bytes);
        *out = own;
        return RC_OK;
    }
    if (r->bytes - r->s->group_at < group_bytes)
        return err_set(e, RC_INVALID, NULL, "the shared memory holds %zu bytes, and %zu are needed",
                       r->bytes - (size_t)r->s->group_at, group_bytes);
    *out = r->group;
    return RC_OK;
}

void tp_loaded(struct tp_rank *r) {
    if (r->far) {
        tp_far_say(r->far, TPW_LOADED, "");
        return;
    }
    atomic_store(&r->seat->state, TP_LOADED);
}

void tp_refuse(struct tp_rank *r, const char *why) {
    if (r->far) {
        tp_far_say(r->far, TPW_REFUSED, why);
        return;
    }
    snprintf(r->seat->why, sizeof r->seat->why, "%s", why);
    atomic_store(&r->seat->state, TP_REFUSED);
}

void tp_leave(struct tp_rank *r) {
    if (!r || !r->far)
        return; /* the heart has it */
    free(r->words);
    free(r);
}

uint8_t *tp_move_room(struct tp_rank *r, size_t *bytes) {
    if (r->far) { /* rank 0 asks for none of its blocks */
        *bytes = 0;
        return NULL;
    }
    *bytes = (size_t)r->s->move_bytes;
    return (uint8_t *)r->s + r->s->move_at;
}

void tp_moved(struct tp_rank *r, uint32_t serial) {
    CHECK(!r->far);
    atomic_store(&r->s->moved, serial);
}

/* read_words: the group being over ends the process (heart does, too). */
static void read_words(struct tp_rank *r, uint32_t *words, size_t n) {
    if (!ring_read(&r->ring, r->rank - 1, words, n))
        _exit(1);
}

enum rc tp_next(struct tp_rank *r, const struct tp_limits *l, struct tp_msg *out, struct err *e) {
    uint32_t head[TP_HEAD_WORDS];
    size_t most = tp_words_max(l);
    if (r->far) {
        free(r->words);
        r->words = tp_far_next(r->far, &r->n_words);
        enum rc rc = tp_get(r->words, r->n_words, l, out, e);
        if (rc == RC_OK && out->kind == TP_STOP)
            tp_far_done(r->far);
        return rc;
    }
    if (most > r->n_words) {
        r->words = xreallocarray(r->words, most, sizeof *r->words);
        r->n_words = most;
    }
    read_words(r, head, TP_HEAD_WORDS);
    if (head[0] < TP_HEAD_WORDS || head[0] > r->n_words)
        return err_set(e, RC_INVALID, NULL, "the step's plan: %u words, and the limit is %zu", head[0],
                       r->n_words);
    memcpy(r->words, head, sizeof head);
    read_words(r, r->words + TP_HEAD_WORDS, head[0] - TP_HEAD_WORDS);
    return tp_get(r->words, head[0], l, out, e);
}
