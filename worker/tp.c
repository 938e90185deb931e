#include "worker/tp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/tp_far.h"

extern char **environ;

enum {
    ENDLESS_MS = 60000 * TP_SLOWER, /* computing while the others wait */
    IDLE_US = 1000,              /* less processor time than this between two looks is none */
    END_MS = 2000 * TP_SLOWER,
    LOAD_POLL_NS = 2000000,
    MOVE_POLL_NS = 20000,
    NOTICE_MS = 1000 /* that a load under way has to notice by itself that a rank is gone */
};

/* Whoever moves on from PHASE_LOADING says what becomes of a rank's end: tp_await_loaded reports it, or
 * on_gone. */
enum { PHASE_LOADING = 0, PHASE_GONE, PHASE_SERVING };

/* watched: what rank 0 knows of another. */
struct watched {
    pid_t pid; /* 0: reaped */
    int pidfd;
    uint32_t beat, reached;
    uint64_t cpu_ns;
    unsigned silent_ms, stuck_ms, late_ms;
};

struct tp {
    struct tp_opts o;
    struct tp_shared *s;
    struct be_group *group;
    uint32_t n_local;   /* ranks on this host; the others are far's */
    struct tp_far *far; /* NULL: none */
    struct ring ring;
    uint32_t *words; /* [tp_words_max] the message being written */
    uint32_t move_serial;
    size_t bytes;
    int memory, leader, events; /* memory file; the pipe's end that closes with this process; an eventfd */
    pthread_t watcher;
    bool watching;
    _Atomic bool ending;
    _Atomic int phase;
    char why[TP_WHY_BYTES + 16];       /* before PHASE_GONE */
    struct watched rank[BE_RANKS_MAX]; /* from 1; the watcher's */
};

/* ---- watching ----------------------------------------------------------------------------------- */

static void say_end(const struct tp *t, uint32_t rank, int status, char *out, size_t n) {
    const struct tp_seat *seat = &t->s->seats[rank];
    if (atomic_load(&seat->state) == TP_REFUSED)
        snprintf(out, n, "rank %u: %.300s", rank, seat->why); /* a line, cut where it is too long */
    else if (WIFSIGNALED(status))
        snprintf(out, n, "rank %u died by signal %d (%s)", rank, WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, n, "rank %u ended with status %d", rank, WEXITSTATUS(status));
}

/* reap: true if a rank has ended; why. */
static bool reap(struct tp *t, uint32_t rank, char *why, size_t n) {
    struct watched *w = &t->rank[rank];
    int status;
    if (!w->pid || waitpid(w->pid, &status, WNOHANG) != w->pid)
        return false;
    w->pid = 0;
    close(w->pidfd);
    w->pidfd = -1;
    say_end(t, rank, status, why, n);
    return true;
}

/* hangs: whether a rank that lives does not take part; why. since_ms: what has passed since the last look, as
 * far as this thread ran itself: it blames nobody for its own pauses. */
static bool hangs(struct tp *t, uint32_t rank, unsigned since_ms, char *why, size_t n) {
    struct watched *w = &t->rank[rank];
    const struct tp_seat *seat = &t->s->seats[rank];
    uint32_t beat = atomic_load(&seat->beat),
             mine = __atomic_load_n(&t->group->reached[rank], __ATOMIC_RELAXED);
    uint64_t cpu_ns = atomic_load(&seat->cpu_ns);
    bool behind = false;
    for (uint32_t k = 0; k < t->o.n_ranks; k++)
        behind |= (int32_t)(__atomic_load_n(&t->group->reached[k], __ATOMIC_RELAXED) - mine) > 0;
    behind &= mine == w->reached;
    w->silent_ms = beat == w->beat ? w->silent_ms + since_ms : 0;
    w->late_ms = behind ? w->late_ms + since_ms : 0;
    w->stuck_ms = behind && cpu_ns - w->cpu_ns < IDLE_US * NS_PER_US ? w->stuck_ms + since_ms : 0;
    w->beat = beat;
    w->reached = mine;
    w->cpu_ns = cpu_ns;
    if (w->silent_ms >= TP_SILENT_MS)
        snprintf(why, n, "rank %u did not answer for %.1f s", rank, w->silent_ms * 1e-3);
    else if (w->stuck_ms >= TP_SILENT_MS)
        snprintf(why, n, "rank %u hung in a step for %.1f s", rank, w->stuck_ms * 1e-3);
    else if (w->late_ms >= ENDLESS_MS)
        snprintf(why, n, "rank %u held up a step for %.0f s", rank, w->late_ms * 1e-3);
    else
        return false;
    return true;
}

/* look: true if a rank is gone. */
static bool look(struct tp *t, unsigned since_ms, char *why, size_t n) {
    for (uint32_t i = 1; i < t->n_local; i++)
        if (reap(t, i, why, n) || hangs(t, i, since_ms, why, n))
            return true;
    for (uint32_t i = t->n_local; i < t->o.n_ranks; i++)
        if (tp_far_here(t->far, i) && (tp_far_gone(t->far, i, why, n) || hangs(t, i, since_ms, why, n)))
            return true;
    return false;
}

static void kill_all(struct tp *t) {
    for (uint32_t i = 1; i < t->n_local; i++)
        if (t->rank[i].pid)
            kill(t->rank[i].pid, SIGKILL);
}

/* reap_all: waits for what is left, and kills it when the time is over. */
static void reap_all(struct tp *t, unsigned ms) {
    uint64_t until = clock_ns() + ms * NS_PER_MS;
    char why[TP_WHY_BYTES + 16];
    for (uint32_t i = 1; i < t->n_local; i++)
        while (t->rank[i].pid && !reap(t, i, why, sizeof why)) {
            struct pollfd p = {.fd = t->rank[i].pidfd, .events = POLLIN};
            uint64_t now = clock_ns();
            if (now >= until)
                kill_all(t);
            poll(&p, 1, now >= until ? -1 : (int)((until - now) / NS_PER_MS) + 1);
        }
}

/* group_fail: from now on no rank waits for another. */
static void group_fail(struct be_group *g, const char *why) {
    snprintf(g->why, sizeof g->why, "%.*s", (int)sizeof g->why - 1, why);
    __atomic_store_n(&g->failed, 1, __ATOMIC_RELEASE);
}

static void wait_events(struct tp *t) {
    uint64_t n;
    struct pollfd p[BE_RANKS_MAX] = {{.fd = t->events, .events = POLLIN}};
    for (uint32_t i = 1; i < t->n_local; i++)
        p[i] = (struct pollfd){.fd = t->rank[i].pidfd, .events = POLLIN}; /* poll passes -1 over */
    poll(p, t->n_local, TP_BEAT_MS);
    if (p[0].revents & POLLIN)
        (void)!read(t->events, &n, sizeof n);
}

/* tell_gone: a load under way is let end in its own words; its files may be what the rank found fault with,
 * too. */
static void tell_gone(struct tp *t) {
    int loading = PHASE_LOADING;
    if (!atomic_compare_exchange_strong(&t->phase, &loading, PHASE_GONE)) {
        t->o.on_gone(t->o.arg, t->why);
        return;
    }
    uint64_t until = clock_ns() + NOTICE_MS * NS_PER_MS;
    struct pollfd p = {.fd = t->events, .events = POLLIN};
    while (!atomic_load(&t->ending) && clock_ns() < until)
        poll(&p, 1, TP_BEAT_MS);
    if (!atomic_load(&t->ending))
        t->o.on_gone(t->o.arg, t->why);
}

static void *watch(void *arg) {
    struct tp *t = arg;
    uint64_t last = clock_ns();
    while (!atomic_load(&t->ending)) {
        wait_events(t);
        uint64_t now = clock_ns(), since_ms = (now - last) / NS_PER_MS;
        last = now;
        if (atomic_load(&t->ending))
            break;
        if (t->far)
            tp_far_beat(t->far);
        if (!look(t, (unsigned)MIN(since_ms, 2 * TP_BEAT_MS), t->why, sizeof t->why))
            continue;
        group_fail(t->group, t->why);
        if (t->far)
            tp_far_over(t->far, t->why);
        kill_all(t);
        reap_all(t, END_MS);
        tell_gone(t);
        break;
    }
    return NULL;
}

/* ---- start -------------------------------------------------------------------------------------- */

static size_t pages(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* high: the same descriptor above those that a rank is started with. */
static int high(int fd) {
    int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 16);
    if (fd >= 0)
        close(fd);
    return up;
}

static enum rc make_memory(struct tp *t, struct err *e) {
    uint64_t ring_at = pages(sizeof(struct tp_shared)), move_at = ring_at + pages(ring_bytes(TP_RING_WORDS));
    uint64_t group_at = move_at + pages(t->o.move_bytes);
    t->bytes = (size_t)group_at + pages(t->o.group_bytes);
    t->memory = high(memfd_create("weir-ranks", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (t->memory < 0 || ftruncate(t->memory, (off_t)t->bytes) ||
        fcntl(t->memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return err_io(e, "no memory to share between ranks");
    void *p = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, t->memory, 0);
    if (p == MAP_FAILED)
        return err_io(e, "no memory to share between ranks");
    t->s = p;
    t->s->magic = TP_MAGIC;
    t->s->n_ranks = t->o.n_ranks;
    t->s->may_spin = t->o.may_spin;
    t->s->bytes = t->bytes;
    t->s->ring_at = ring_at;
    t->s->move_at = move_at;
    t->s->move_bytes = t->o.move_bytes;
    t->s->group_at = group_at;
    t->group = (struct be_group *)(void *)((uint8_t *)p + group_at);
    if (t->n_local > 1)
        ring_init(&t->ring, (uint8_t *)p + ring_at, TP_RING_WORDS, t->n_local - 1, &t->group->failed, t->o.may_spin);
    t->s->n_local = t->n_local;
    return RC_OK;
}

/* start_rank: this program again. It inherits the blocked signals: a terminal's Ctrl-C is rank 0's alone. */
static enum rc start_rank(struct tp *t, uint32_t rank, int leader, struct err *e) {
    char own[32], parent[48];
    char **argv = xcalloc((size_t)t->o.argc + 3, sizeof *argv);
    posix_spawn_file_actions_t files;
    snprintf(own, sizeof own, "--rank=%u", rank);
    snprintf(parent, sizeof parent, "--parent-pid=%d", (int)getpid());
    for (int i = 0; i < t->o.argc; i++)
        argv[i] = t->o.argv[i];
    argv[t->o.argc] = parent;
    argv[t->o.argc + 1] = own;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, t->memory, TP_FD_MEMORY);
    posix_spawn_file_actions_adddup2(&files, leader, TP_FD_LEADER);
    int rc = posix_spawn(&t->rank[rank].pid, "/proc/self/exe", &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    free(argv);
    if (rc) {
        t->rank[rank].pid = 0;
        return err_set(e, RC_IO, NULL, "cannot start rank %u: %s", rank, strerror(rc));
    }
    t->rank[rank].pidfd = pidfd_open(t->rank[rank].pid, 0);
    return t->rank[rank].pidfd < 0 ? err_io(e, "cannot watch a rank") : RC_OK;
}

static enum rc start_ranks(struct tp *t, struct err *e) {
    int p[2];
    if (pipe2(p, O_CLOEXEC))
        return err_io(e, "no pipe to the ranks");
    int theirs = high(p[0]);
    t->leader = high(p[1]);
    enum rc rc = theirs < 0 || t->leader < 0 ? err_io(e, "no pipe to the ranks") : RC_OK;
    for (uint32_t i = 1; i < t->n_local && rc == RC_OK; i++)
        rc = start_rank(t, i, theirs, e);
    if (theirs >= 0)
        close(theirs);
    return rc;
}

/* open_door: for the ranks on other hosts. */
static enum rc open_door(struct tp *t, struct err *e) {
    struct tp_far_opts o = {.first = t->n_local,
                            .n_ranks = t->o.n_ranks,
                            .config = &t->o.far,
                            .ops = t->o.ops,
                            .be = t->o.be,
                            .s = t->s,
                            .events = t->events,
                            .silent_ms = TP_SILENT_MS};
    o.be.group = t->group;
    return tp_far_open(&t->far, &o, e);
}

enum rc tp_lead(struct tp **out, const struct tp_opts *o, struct err *e) {
    CHECK(o->n_ranks >= 2 && o->n_ranks <= BE_RANKS_MAX && o->on_gone && o->n_far < o->n_ranks);
    struct tp *t = xcalloc(1, sizeof *t);
    t->o = *o;
    t->n_local = o->n_ranks - o->n_far;
    t->memory = t->leader = -1;
    for (uint32_t i = 0; i < BE_RANKS_MAX; i++)
        t->rank[i].pidfd = -1;
    t->words = xmalloc(tp_words_max(&o->limits) * sizeof *t->words);
    t->events = eventfd(0, EFD_CLOEXEC);
    enum rc rc = t->events < 0 ? err_io(e, "no eventfd") : make_memory(t, e);
    if (rc == RC_OK)
        rc = start_ranks(t, e);
    if (rc == RC_OK && o->n_far)
        rc = open_door(t, e);
    if (rc == RC_OK && (errno = pthread_create(&t->watcher, NULL, watch, t)))
        rc = err_io(e, "no thread to watch the ranks");
    if (rc != RC_OK) {
        tp_end(t);
        return rc;
    }
    t->watching = true;
    pthread_setname_np(t->watcher, "ranks");
    *out = t;
    return RC_OK;
}

/* ---- the group's life --------------------------------------------------------------------------- */

struct be_group *tp_group(const struct tp *t) {
    return t->group;
}

int tp_port(const struct tp *t) {
    return t->far ? tp_far_port(t->far) : 0;
}

static bool all_loaded(const struct tp *t) {
    for (uint32_t i = 1; i < t->o.n_ranks; i++)
        if (atomic_load(&t->s->seats[i].state) != TP_LOADED)
            return false;
    return true;
}

enum rc tp_await_loaded(struct tp *t, struct err *e) {
    while (!all_loaded(t) && atomic_load(&t->phase) == PHASE_LOADING) {
        nanosleep(&(struct timespec){0, LOAD_POLL_NS}, NULL);
        if (t->o.on_wait)
            t->o.on_wait(t->o.wait_arg);
    }
    int loading = PHASE_LOADING;
    if (atomic_compare_exchange_strong(&t->phase, &loading, PHASE_SERVING))
        return RC_OK;
    return err_set(e, RC_INVALID, NULL, "%s", t->why);
}

/* tell: a group that is over takes nothing, and tp_settle sees it. */
static void tell(struct tp *t, size_t n) {
    if (t->far)
        tp_far_tell(t->far, t->words, n);
    if (t->n_local > 1 && !ring_write(&t->ring, t->words, n))
        LOG(LOG_DEBUG, "no rank takes the plan");
}

void tp_pools(struct tp *t, const uint32_t *n_blocks, uint32_t n_groups) {
    tell(t, tp_put_pools(t->words, n_blocks, n_groups));
}

void tp_copies(struct tp *t, uint32_t group, const struct be_copy *copies, uint32_t n) {
    CHECK(n <= t->o.limits.n_seqs_max);
    tell(t, tp_put_copies(t->words, group, copies, n));
}

void tp_step(struct tp *t, const struct batch *b) {
    const struct tp_limits *l = &t->o.limits;
    CHECK(b->n_tokens <= l->n_tokens_max && b->n_seqs <= l->n_seqs_max && b->n_rows <= l->n_rows_max);
    tell(t, tp_put_step(t->words, b));
}

bool tp_move(struct tp *t, uint32_t rank, uint32_t group, const uint32_t *blocks, uint32_t n, size_t block_bytes,
             uint8_t *data, bool in) {
    uint8_t *room = (uint8_t *)t->s + t->s->move_at;
    CHECK(rank > 0 && rank < t->n_local && block_bytes > 0 && block_bytes <= t->o.move_bytes);
    const uint32_t most = (uint32_t)MIN(t->o.move_bytes / block_bytes, (size_t)TP_MOVE_BLOCKS);
    for (uint32_t at = 0, k; at < n; at += k) {
        k = MIN(n - at, most);
        const size_t from = at * block_bytes, bytes = k * block_bytes;
        if (in)
            memcpy(room, data + from, bytes);
        tell(t, tp_put_move(t->words, in, rank, ++t->move_serial, group, blocks + at, k));
        while (atomic_load(&t->s->moved) != t->move_serial) {
            if (__atomic_load_n(&t->group->failed, __ATOMIC_ACQUIRE))
                return false;
            nanosleep(&(struct timespec){0, MOVE_POLL_NS}, NULL);
        }
        if (!in)
            memcpy(data + from, room, bytes);
    }
    return true;
}

void tp_settle(struct tp *t) {
    while (__atomic_load_n(&t->group->failed, __ATOMIC_ACQUIRE))
        pause();
}

void tp_end(struct tp *t) {
    if (!t)
        return;
    uint64_t one = 1;
    atomic_store(&t->ending, true);
    if (t->events >= 0)
        (void)!write(t->events, &one, sizeof one);
    if (t->watching)
        pthread_join(t->watcher, NULL);
    if (t->s && t->watching && all_loaded(t))
        tell(t, tp_put_stop(t->words));
    else
        kill_all(t);
    reap_all(t, END_MS);
    tp_far_close(t->far, t->watching && t->s && all_loaded(t) ? END_MS : 0);
    if (t->s)
        munmap(t->s, t->bytes);
    int fds[] = {t->memory, t->leader, t->events};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(t->words);
    free(t);
}
