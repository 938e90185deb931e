#include "worker/cpu/group.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
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
    uint32_t n_rows_max, n_vocab, stride; /* of the logits */
    const struct be_far *far;             /* NULL: the others share this memory */
    float *message;                       /* far: [far_floats] what goes to the stand */
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

/* far_head: in front of what a rank and its stand say to each other: floats of a slot, of which the sums come back, or
 * columns of some rows of the logits. */
enum { FAR_SUM = 1, FAR_LOGITS, FAR_HEAD_FLOATS = 8, FAR_FLOATS_MAX = 1 << 20 };
struct far_head {
    uint32_t kind, n; /* n: floats behind the head */
    uint32_t row0, n_rows, col0, cols, first, last; /* FAR_LOGITS; first, last: of the parts of a step's logits */
};
_Static_assert(sizeof(struct far_head) == FAR_HEAD_FLOATS * sizeof(float), "a head goes in front of floats");

/* far_floats: of the longest message. A row of logits fits. */
static size_t far_floats(const struct group *g) {
    return FAR_HEAD_FLOATS + MAX(g->slot_floats, MAX((size_t)FAR_FLOATS_MAX, (size_t)g->n_vocab));
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
    g->n_rows_max = cfg->n_rows_max;
    g->n_vocab = cfg->n_vocab;
    g->stride = cpu_vocab_padded(cfg->n_vocab);
    g->far = cfg->far;
    g->message = cfg->far ? xcalloc(far_floats(g), sizeof *g->message) : NULL;
    return g;
}

void group_close(struct group *g) {
    if (!g)
        return;
    free(g->message);
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
    if (g->gave_up && g->far && !failed(g))
        snprintf(err, BE_ERR_BYTES, "the group of ranks is over");
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

/* ---- ranks on other hosts ----------------------------------------------------------------------- */

/* far_call: message: its head, and behind it h->n floats. */
static void far_call(struct group *g, float *message, const struct far_head *h, float *out, size_t n_out) {
    memcpy(message, h, sizeof *h);
    if (!g->gave_up && !g->far->call(g->far->arg, message, (FAR_HEAD_FLOATS + (size_t)h->n) * sizeof(float), out,
                                     n_out * sizeof(float)))
        g->gave_up = true;
}

/* far_sum: the first slot becomes the sum of all ranks' slots. */
static void far_sum(struct group *g, uint32_t n) {
    struct far_head h = {.kind = FAR_SUM, .n = n};
    memcpy(g->message + FAR_HEAD_FLOATS, group_slot(g), n * sizeof(float));
    far_call(g, g->message, &h, slot_of(g, 0), n);
}

static void far_logits(struct group *g, uint32_t n_rows, uint32_t col0, uint32_t cols) {
    uint32_t most = MAX(1u, FAR_FLOATS_MAX / MAX(cols, 1u)), row = 0;
    do {
        uint32_t n = MIN(most, n_rows - row);
        struct far_head h = {FAR_LOGITS, n * cols, row, n, col0, cols, row == 0, row + n == n_rows};
        for (uint32_t r = 0; r < n; r++)
            memcpy(g->message + FAR_HEAD_FLOATS + (size_t)r * cols, g->logits + (size_t)(row + r) * g->stride + col0,
                   cols * sizeof(float));
        far_call(g, g->message, &h, NULL, 0);
        row += n;
    } while (row < n_rows && !g->gave_up);
}

struct be_stand {
    struct group *g;
};

struct be_stand *group_stand_open(const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    (void)err;
    struct be_config c = *cfg;
    c.far = NULL;
    struct be_stand *s = xcalloc(1, sizeof *s);
    s->g = group_open(&c, 1);
    return s;
}

void group_stand_close(struct be_stand *s) {
    if (!s)
        return;
    group_close(s->g);
    free(s);
}

/* stand_sum: as group_sum, up to what the rank itself does. */
static bool stand_sum(struct group *g, const struct far_head *h, const float *v, float *out) {
    memcpy(group_slot(g), v, h->n * sizeof *v);
    group_meet(g);
    if (g->gave_up)
        return false;
    memcpy(out, slot_of(g, 0), h->n * sizeof *out);
    for (uint32_t k = 1; k < g->n_ranks; k++) {
        const float *part = slot_of(g, k);
        for (uint32_t i = 0; i < h->n; i++)
            out[i] += part[i];
    }
    g->turn ^= 1;
    return true;
}

static bool stand_logits(struct group *g, const struct far_head *h, const float *v) {
    if (h->first)
        group_meet(g); /* nobody reads the last rows any more */
    for (uint32_t r = 0; r < h->n_rows && !g->gave_up; r++)
        memcpy(g->logits + (size_t)(h->row0 + r) * g->stride + h->col0, v + (size_t)r * h->cols, h->cols * sizeof *v);
    if (h->last)
        group_meet(g);
    return !g->gave_up;
}

bool group_stand_call(struct be_stand *s, const void *in, size_t n, void *out, size_t n_out) {
    struct group *g = s->g;
    struct far_head h;
    if (n < sizeof h || n % sizeof(float))
        return false;
    memcpy(&h, in, sizeof h);
    const float *v = (const float *)in + FAR_HEAD_FLOATS;
    if (h.n != n / sizeof(float) - FAR_HEAD_FLOATS)
        return false;
    if (h.kind == FAR_SUM)
        return h.n <= g->slot_floats && n_out == h.n * sizeof(float) && stand_sum(g, &h, v, out);
    return h.kind == FAR_LOGITS && n_out == 0 && h.n == (uint64_t)h.n_rows * h.cols && h.n_rows <= g->n_rows_max &&
           h.row0 <= g->n_rows_max - h.n_rows && h.cols <= g->n_vocab && h.col0 <= g->n_vocab - h.cols &&
           stand_logits(g, &h, v);
}

/* ---- sums --------------------------------------------------------------------------------------- */

void group_logits_begin(struct group *g) {
    if (!g->far)
        group_meet(g); /* nobody reads the last rows any more */
}

void group_logits_end(struct group *g, uint32_t n_rows, uint32_t col0, uint32_t cols) {
    if (g->far)
        far_logits(g, n_rows, col0, cols);
    else
        group_meet(g);
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
    uint32_t n_slots = g->far ? 1 : g->n_ranks; /* far: the first is all of them */
    for (uint32_t c0 = 0; c0 < s->cols; c0 += 64) { /* a piece stays in the cache for all ranks */
        uint32_t n = MIN(64, s->cols - c0);
        float v[64];
        memcpy(v, first + c0, n * sizeof *v);
        for (uint32_t k = 1; k < n_slots; k++) {
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
    if (g->far)
        far_sum(g, s->n_rows * s->cols);
    else
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
