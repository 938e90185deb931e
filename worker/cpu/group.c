#include "worker/cpu/group.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/cpu/be.h"

enum { SPIN_NS = 20000, SPINS_PER_CLOCK = 32, NAP_NS = 100000000, TEAM_FLOATS = 32768 };

/* shared: behind the head of the group's memory. A waiter names itself in n_asleep before it sleeps; whoever
 * ends a meeting looks there afterwards. */
struct shared {
    struct be_group head;
    _Alignas(64) _Atomic uint32_t n_arrived; /* at the meeting under way */
    _Alignas(64) _Atomic uint32_t n_met;     /* meetings that are over */
    _Atomic uint32_t n_asleep;
};

struct group {
    struct shared *s;
    float *slots, *logits; /* slots: [2][n_ranks][slot_floats] */
    size_t slot_floats;
    uint32_t rank, n_ranks, n_cols;
    uint32_t turn; /* the set of slots of the next sum */
    bool may_spin, gave_up;
};

static size_t lines(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static size_t slot_floats(const struct be_config *cfg) {
    return lines((size_t)GROUP_ROWS * cfg->n_reduce_cols * sizeof(float)) / sizeof(float);
}

size_t group_bytes(const struct be_config *cfg) {
    size_t slots = 2 * (size_t)cfg->n_ranks * slot_floats(cfg) * sizeof(float);
    return lines(sizeof(struct shared)) + slots +
           (size_t)cfg->n_rows_max * cpu_vocab_padded(cfg->n_vocab) * sizeof(float);
}

struct group *group_open(const struct be_config *cfg, int n_threads) {
    struct group *g = xcalloc(1, sizeof *g);
    CHECK((uintptr_t)cfg->group % 64 == 0);
    g->s = (struct shared *)(void *)cfg->group;
    g->slots = (float *)(void *)((uint8_t *)cfg->group + lines(sizeof(struct shared)));
    g->slot_floats = slot_floats(cfg);
    g->logits = g->slots + 2 * (size_t)cfg->n_ranks * g->slot_floats;
    g->rank = (uint32_t)cfg->rank;
    g->n_ranks = (uint32_t)cfg->n_ranks;
    g->n_cols = cfg->n_reduce_cols;
    g->may_spin = cfg->n_ranks * n_threads <= team_cores();
    return g;
}

void group_close(struct group *g) {
    free(g);
}

float *group_logits(const struct group *g) {
    return g->logits;
}

static bool failed(const struct group *g) {
    return __atomic_load_n(&g->s->head.failed, __ATOMIC_ACQUIRE) != 0;
}

bool group_why(const struct group *g, char err[BE_ERR_BYTES]) {
    if (g->gave_up)
        memcpy(err, g->s->head.why, BE_ERR_BYTES);
    return g->gave_up;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* await: until the meeting numbered `seen` is over; false if the group failed. Sleeps are short, because
 * whoever sets `failed` wakes nobody. */
static bool await(struct group *g, uint32_t seen) {
    struct shared *s = g->s;
    const struct timespec nap = {0, NAP_NS};
    for (uint64_t until = 0; g->may_spin;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&s->n_met, memory_order_acquire) != seen)
                return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        uint64_t t = now_ns();
        if (!until)
            until = t + SPIN_NS;
        else if (t > until)
            break;
    }
    bool met;
    atomic_fetch_add(&s->n_asleep, 1);
    while (!(met = atomic_load(&s->n_met) != seen) && !failed(g))
        syscall(SYS_futex, &s->n_met, FUTEX_WAIT, seen, &nap, NULL, 0);
    atomic_fetch_sub(&s->n_asleep, 1);
    return met;
}

void group_meet(struct group *g) {
    struct shared *s = g->s;
    if (g->gave_up || failed(g)) {
        g->gave_up = true;
        return;
    }
    uint32_t seen = atomic_load_explicit(&s->n_met, memory_order_relaxed);
    __atomic_add_fetch(&s->head.reached[g->rank], 1, __ATOMIC_RELAXED);
    if (atomic_fetch_add(&s->n_arrived, 1) + 1 < g->n_ranks) {
        g->gave_up = !await(g, seen);
        return;
    }
    atomic_store(&s->n_arrived, 0);
    atomic_fetch_add(&s->n_met, 1);
    if (atomic_load(&s->n_asleep) > 0)
        syscall(SYS_futex, &s->n_met, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static float *slot_of(struct group *g, uint32_t rank) {
    return g->slots + ((size_t)g->turn * g->n_ranks + rank) * g->slot_floats;
}

float *group_slot(struct group *g) {
    return slot_of(g, g->rank);
}

struct sum {
    const struct group_sum *s;
    struct group *g;
    struct team_queue rows;
};

static void row_sum(const struct group_sum *s, struct group *g, uint32_t r) {
    size_t at = (size_t)r * s->cols;
    const float *first = slot_of(g, 0) + at, *add = s->add ? s->add + at : NULL;
    float *y = s->y + at;
    for (uint32_t c0 = 0; c0 < s->cols; c0 += 64) { /* a piece stays in the cache for all ranks */
        uint32_t n = MIN(64, s->cols - c0);
        float v[64];
        memcpy(v, first + c0, n * sizeof *v);
        for (uint32_t k = 1; k < g->n_ranks; k++) {
            const float *part = slot_of(g, k) + at + c0;
            for (uint32_t c = 0; c < n; c++)
                v[c] += part[c];
        }
        for (uint32_t c = 0; s->bias && c < n; c++)
            v[c] += s->bias[c0 + c];
        for (uint32_t c = 0; s->act != ACT_NONE && c < n; c++)
            v[c] = ref_act(s->act, v[c]);
        for (uint32_t c = 0; add && c < n; c++)
            v[c] += add[c0 + c];
        memcpy(y + c0, v, n * sizeof *v);
    }
}

static void sum_run(void *arg, int member) {
    struct sum *u = arg;
    uint32_t n, i;
    (void)member;
    while (i = queue_take(&u->rows, &n), n)
        for (uint32_t r = i; r < i + n; r++)
            row_sum(u->s, u->g, r);
}

void group_sum(struct be *b, const struct group_sum *s) {
    struct group *g = b->group;
    CHECK(s->n_rows <= GROUP_ROWS && s->cols <= g->n_cols);
    group_meet(g);
    if (g->gave_up)
        return;
    struct sum u = {.s = s, .g = g};
    queue_init(&u.rows, s->n_rows, 4);
    if ((size_t)s->n_rows * s->cols * g->n_ranks < TEAM_FLOATS)
        sum_run(&u, 0); /* shorter than to wake the team */
    else
        team_run(b->team, sum_run, &u);
    g->turn ^= 1;
}

void group_gemm(struct be *b, const struct op_gemm *op,
                void (*gemm)(struct be *b, const struct op_gemm *op)) {
    uint32_t n = op->n_rows ? op->n_rows : b->plan.n_tokens, cols = op->w->n_out, n_in = op->w->n_in;
    CHECK(op->y != op->x && !op->rope.on && !w_gated(op->w));
    float *x = cpu_f32(op->x, n, n_in), *y = cpu_f32(op->y, n, cols);
    const float *add = op->add ? cpu_f32(op->add, n, cols) : NULL;
    for (uint32_t r = 0; r < n; r += GROUP_ROWS) {
        uint32_t rows = MIN(GROUP_ROWS, n - r);
        struct be_mem in = {.data = x + (size_t)r * n_in, .rows = rows, .cols = n_in, .dtype = DT_F32};
        struct be_mem out = {.data = group_slot(b->group), .rows = rows, .cols = cols, .dtype = DT_F32};
        CHECK(cols <= b->group->n_cols);
        gemm(b, &(struct op_gemm){.y = &out, .x = &in, .w = op->w, .norm = op->norm, .n_rows = rows});
        group_sum(b, &(struct group_sum){.y = y + (size_t)r * cols,
                                         .bias = cpu_vector(op->bias, cols),
                                         .add = add ? add + (size_t)r * cols : NULL,
                                         .act = op->act,
                                         .n_rows = rows,
                                         .cols = cols});
    }
}

/* shard_row: a token's row if this rank has it, else zeros; what replaces a row comes from rank 0. */
static void shard_row(struct be *b, const struct op_embed *op, uint32_t t, float *y) {
    const struct plan *p = &b->plan;
    uint32_t id = p->tokens[t], replaced = p->embed_row[t];
    bool mine = replaced ? b->group->rank == 0 : id >= op->row0 && id - op->row0 < op->tokens->n_out;
    if (!mine) {
        memset(y, 0, op->cols * sizeof *y);
        return;
    }
    if (replaced)
        memcpy(y, cpu_f32(p->embeds, replaced, op->cols) + (size_t)(replaced - 1) * op->cols,
               op->cols * sizeof *y);
    else
        w_row_get(op->tokens, id - op->row0, y);
    for (uint32_t i = 0; op->scale != 0 && i < op->cols; i++)
        y[i] *= op->scale;
}

void group_embed(struct be *b, const struct op_embed *op) {
    uint32_t n = b->plan.n_tokens;
    float *y = cpu_f32(op->y, n, op->cols);
    CHECK(!op->positions && !op->types && op->norm.kind == NORM_NONE && op->cols <= b->group->n_cols);
    for (uint32_t t = 0; t < n; t += GROUP_ROWS) {
        uint32_t rows = MIN(GROUP_ROWS, n - t);
        for (uint32_t r = 0; r < rows; r++)
            shard_row(b, op, t + r, group_slot(b->group) + (size_t)r * op->cols);
        group_sum(b, &(struct group_sum){.y = y + (size_t)t * op->cols, .n_rows = rows, .cols = op->cols});
    }
}
