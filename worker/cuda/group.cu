#include "worker/cuda/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "worker/cuda/exchange.h"
#include "worker/cuda/nccl.h"

#ifdef WEIR_SANITIZE /* everything takes longer */
enum { SLOWER = 10 };
#else
enum { SLOWER = 1 };
#endif
static const uint64_t MS = 1000000, HANG_NS = 1500 * MS * SLOWER, FIRST_NS = 60000 * MS * SLOWER, LEAVE_NS = 1000 * MS;
enum { SLOT_BYTES_MAX = 4 << 20, LAPS = 20, WORD_LINE = 32 };
enum { PHASE_HERE = 1, PHASE_OPENED, PHASE_MEASURED };

/* seat: what a rank tells the others. Words are written by their rank alone. */
struct seat {
    uint32_t phase; /* of group_join */
    uint32_t done;  /* exchanges whose kernels have ended */
    uint32_t opened; /* the regions of all */
    uint32_t host;   /* 0: rank 0's; else a number of its own */
    char place[RT_PLACE_BYTES];
    uint8_t handle[RT_HANDLE_BYTES];
};

/* shared: behind the head of be_group. library, id, one_max and two_max are rank 0's. */
struct shared {
    struct be_group head;
    uint32_t library;
    uint8_t id[NCCL_ID_BYTES];
    uint64_t one_max, two_max;
    struct seat seat[BE_RANKS_MAX];
};

struct group {
    struct shared *s;
    struct rt *rt;
    uint32_t rank, n_ranks, n_vocab;
    struct nccl *nccl; /* NULL: not for these ranks */
    bool own;          /* regions are open */
    struct exchange x; /* its words serve NCCL's exchanges too */
    uint32_t *words;   /* pinned: the mark, and a line behind it `stop` */
    /* bytes of a sum that goes through the regions in one step, in two; what is more goes to NCCL, if it is there */
    size_t one_max, two_max;
    const struct be_far *far;       /* rank 0 is on another host; `s` is this rank's alone then. NULL: it is here */
    uint32_t reached[BE_RANKS_MAX]; /* as last seen */
    uint64_t moved_ns;              /* when one of them last moved; 0: nobody waits */
    bool together;                  /* group_join is over */
    bool steady;                    /* and a step has come to its end: what takes long at first has been done */
};

size_t group_shared_bytes(const struct be_config *cfg) {
    (void)cfg;
    return sizeof(struct shared);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

static void nap(uint64_t ns) {
    struct timespec t = {0, static_cast<long>(ns)};
    nanosleep(&t, NULL);
}

static uint32_t get(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
static void put(uint32_t *word, uint32_t v) {
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
}

/* ---- watching ------------------------------------------------------------------------------------ */

/* stop_all: this rank's kernels wait for nobody any more. */
static bool stop_all(struct group *g) {
    __atomic_store_n(&g->words[WORD_LINE], 1, __ATOMIC_RELEASE);
    return true;
}

/* hangs: whether for long no rank has come to another exchange; why names the one that is furthest behind. A rank on another
 * host sees nobody, and leaves it to rank 0. */
static bool hangs(struct group *g, char why[BE_ERR_BYTES]) {
    if (g->far)
        return false;
    uint64_t now = now_ns(), limit = g->steady ? HANG_NS : FIRST_NS;
    bool moved = g->moved_ns == 0;
    uint32_t last = 0;
    for (uint32_t k = 0; k < g->n_ranks; k++) {
        uint32_t reached = __atomic_load_n(&g->s->head.reached[k], __ATOMIC_RELAXED);
        moved |= reached != g->reached[k];
        g->reached[k] = reached;
        if (static_cast<int32_t>(reached - g->reached[last]) < 0)
            last = k;
    }
    if (moved)
        g->moved_ns = now;
    if (now - g->moved_ns < limit)
        return false;
    dev_err(why, "rank %u: its GPU has come no further in a step for %.1f s", last,
            static_cast<double>(now - g->moved_ns) * 1e-9);
    return true;
}

/* look: rt_guard's. */
static bool look(void *arg, bool done, char why[BE_ERR_BYTES]) {
    struct group *g = static_cast<struct group *>(arg);
    uint32_t mark = get(&g->words[0]);
    __atomic_store_n(&g->s->head.reached[g->rank], mark, __ATOMIC_RELAXED);
    if (get(&g->s->head.failed)) {
        memcpy(why, g->s->head.why, BE_ERR_BYTES);
        return stop_all(g);
    }
    if (g->nccl && nccl_failed(g->nccl, why))
        return stop_all(g);
    if (done) {
        g->moved_ns = 0;
        g->steady |= g->together && mark != get(&g->s->seat[g->rank].done);
        put(&g->s->seat[g->rank].done, mark);
        return false;
    }
    return hangs(g, why) && stop_all(g);
}

/* ---- coming together ------------------------------------------------------------------------------ */

/* await: until all ranks have come to a phase. False: the group is over. */
static bool await(const struct shared *s, uint32_t n_ranks, uint32_t phase) {
    for (uint32_t k = 0; k < n_ranks; k++)
        while (get(&s->seat[k].phase) < phase) {
            if (get(&s->head.failed))
                return false;
            nap(MS);
        }
    return true;
}

/* A rank on another host sends its seat, and gets what all have in theirs, and what rank 0 has found. */
struct far_seat {
    uint32_t phase;
    struct seat seat;
};

static int far_meet(struct group *g, uint32_t phase, char err[BE_ERR_BYTES]) {
    struct far_seat mine = {phase, g->s->seat[g->rank]};
    static_assert(sizeof(struct shared) < 16384, "it is on the stack");
    struct shared all;
    if (!g->far->call(g->far->arg, &mine, sizeof mine, &all, sizeof all))
        return dev_err(err, "the group of ranks is over");
    g->s->library = all.library;
    memcpy(g->s->id, all.id, sizeof all.id);
    g->s->one_max = all.one_max;
    g->s->two_max = all.two_max;
    for (uint32_t k = 0; k < g->n_ranks; k++)
        if (k != g->rank)
            g->s->seat[k] = all.seat[k];
    return 0;
}

/* meet: returns when all ranks have come to a phase. */
static int meet(struct group *g, uint32_t phase, char err[BE_ERR_BYTES]) {
    if (g->far)
        return far_meet(g, phase, err);
    put(&g->s->seat[g->rank].phase, phase);
    return await(g->s, g->n_ranks, phase) ? 0 : dev_err(err, "%s", g->s->head.why);
}

struct be_stand {
    struct shared *s;
    uint32_t rank, n_ranks;
};

struct be_stand *group_stand_open(const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    struct be_stand *s = static_cast<struct be_stand *>(calloc(1, sizeof *s));
    if (!s) {
        dev_err(err, "no memory for a rank's stand");
        return NULL;
    }
    s->s = reinterpret_cast<struct shared *>(cfg->group);
    s->rank = static_cast<uint32_t>(cfg->rank);
    s->n_ranks = static_cast<uint32_t>(cfg->n_ranks);
    return s;
}

void group_stand_close(struct be_stand *s) {
    free(s);
}

bool group_stand_call(struct be_stand *s, const void *in, size_t n, void *out, size_t n_out) {
    struct far_seat its;
    struct seat *seat = &s->s->seat[s->rank];
    if (n != sizeof its || n_out != sizeof(struct shared))
        return false;
    memcpy(&its, in, sizeof its);
    if (its.phase < PHASE_HERE || its.phase > PHASE_MEASURED)
        return false;
    memcpy(seat->place, its.seat.place, sizeof seat->place);
    seat->place[sizeof seat->place - 1] = 0;
    seat->host = s->rank;      /* whatever its places are called, they are others than here */
    put(&seat->opened, 0);     /* nobody reaches its device's memory */
    put(&seat->phase, its.phase);
    if (!await(s->s, s->n_ranks, its.phase))
        return false;
    memcpy(out, s->s, sizeof *s->s);
    return true;
}

/* slot_bytes: for the largest sum that is worth it, and for a row of logits at least. */
static size_t slot_bytes(const struct be *b, const struct be_config *cfg) {
    size_t row = static_cast<size_t>(cfg->n_reduce_cols) * dtype_bytes(b->act);
    size_t logits = static_cast<size_t>(blocks_for(cfg->n_vocab, static_cast<unsigned>(cfg->n_ranks))) * sizeof(float) + 1024;
    size_t bytes = MAX(MIN(row * cfg->n_tokens_max, static_cast<size_t>(SLOT_BYTES_MAX)), MAX(row, logits));
    return (bytes + 255) / 256 * 256;
}

/* words_make: what kernels write and read whichever way a sum goes. */
static int words_make(struct be *b, struct group *g, char err[BE_ERR_BYTES]) {
    g->words = static_cast<uint32_t *>(rt_pinned(b->rt, 2 * WORD_LINE * sizeof *g->words));
    g->x.state = static_cast<uint32_t *>(rt_alloc(b->rt, EXCHANGE_STATE_WORDS * sizeof(uint32_t)));
    if (!g->words || !g->x.state)
        return dev_err(err, "no memory for a group of ranks");
    memset(g->words, 0, 2 * WORD_LINE * sizeof *g->words);
    g->x.mark = rt_word(b->rt, &g->words[0], true);
    g->x.stop = rt_word(b->rt, &g->words[WORD_LINE], true);
    g->x.failed = rt_word(b->rt, &g->s->head.failed, false);
    return g->x.mark && g->x.stop ? 0 : dev_err(err, "the GPU does not reach the memory of the host");
}

/* regions_open: true if this rank reaches the regions of all. */
static bool regions_open(struct group *g) {
    for (uint32_t k = 0; k < g->n_ranks; k++) {
        if (k != g->rank)
            g->x.region[k] = static_cast<unsigned char *>(rt_peer(g->rt, g->s->seat[k].handle));
        if (!g->x.region[k])
            return false;
    }
    return true;
}

static bool apart(const struct group *g) {
    for (uint32_t k = 0; k < g->n_ranks; k++)
        for (uint32_t i = 0; i < k; i++)
            if (g->s->seat[k].host == g->s->seat[i].host &&
                strncmp(g->s->seat[k].place, g->s->seat[i].place, RT_PLACE_BYTES) == 0)
                return false;
    return true;
}

/* seconds: of a sum of n rows, by one way; below 0: it failed, and why. */
static double seconds(struct be *b, struct group *g, void *data, uint32_t n, uint32_t cols, int steps,
                      char err[BE_ERR_BYTES]) {
    struct exchange_sum s = {};
    uint64_t from = 0;
    s.in = s.y = data;
    s.n = n;
    s.cols = cols;
    s.two = steps == 2;
    for (int i = -2; i < LAPS; i++) {
        if (i == 0) {
            if (rt_wait(b->rt, err) != 0)
                return -1;
            from = now_ns();
        }
        if (steps)
            exchange_sum(b, &g->x, &s);
        else
            nccl_sum(g->nccl, data, static_cast<size_t>(n) * cols, b->act);
    }
    return rt_wait(b->rt, err) != 0 ? -1 : static_cast<double>(now_ns() - from) * 1e-9 / static_cast<double>(LAPS);
}

/* measure: all ranks take part, and what rank 0 finds holds for all: up to which size one step is the fastest way, and
 * up to which one of our own is. */
static int measure(struct be *b, struct group *g, uint32_t cols, char err[BE_ERR_BYTES]) {
    size_t row = static_cast<size_t>(cols) * dtype_bytes(b->act), one_max = 0, two_max = 0;
    void *data = rt_alloc(b->rt, g->x.slot_bytes);
    bool one_best = true, own_best = true;
    if (!data)
        return dev_err(err, "no memory for measuring a group of ranks");
    for (uint32_t n = 1; n * row <= g->x.slot_bytes; n *= 2) {
        double one = seconds(b, g, data, n, cols, 1, err), two = one < 0 ? -1 : seconds(b, g, data, n, cols, 2, err);
        double library = !g->nccl ? INFINITY : two < 0 ? -1 : seconds(b, g, data, n, cols, 0, err);
        if (one < 0 || two < 0 || library < 0) { /* the others wait for this rank until it has ended */
            rt_free(b->rt, data);
            return -1;
        }
        one_best &= one <= two;
        own_best &= MIN(one, two) <= library;
        one_max = one_best ? n * row : one_max;
        two_max = own_best ? n * row : two_max;
    }
    rt_free(b->rt, data);
    if (g->rank == 0) {
        g->s->one_max = one_max;
        g->s->two_max = two_max;
    }
    return 0;
}

static int ways_choose(struct be *b, struct group *g, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    if (g->own && rt_measures(b->rt)) {
        if (measure(b, g, cfg->n_reduce_cols, err) != 0)
            return -1;
    } else if (g->rank == 0) {
        g->s->one_max = g->x.slot_bytes / 4;
        g->s->two_max = g->x.slot_bytes;
    }
    if (meet(g, PHASE_MEASURED, err) != 0)
        return -1;
    g->one_max = g->own ? static_cast<size_t>(g->s->one_max) : 0;
    g->two_max = !g->own ? 0 : g->nccl ? static_cast<size_t>(g->s->two_max) : SIZE_MAX;
    return 0;
}

static int ways_open(struct be *b, struct group *g, const struct be_config *cfg, bool wants_own, const char *no_library,
                     char err[BE_ERR_BYTES]) {
    bool lone = apart(g), library = lone && g->s->library;
    if (library && nccl_open(&g->nccl, b->rt, g->s->id, cfg->rank, cfg->n_ranks, err) != 0)
        return -1;
    put(&g->s->seat[g->rank].opened, wants_own && regions_open(g));
    if (meet(g, PHASE_OPENED, err) != 0)
        return -1;
    g->own = true;
    for (uint32_t k = 0; k < g->n_ranks; k++)
        g->own &= get(&g->s->seat[k].opened) != 0;
    if (g->own || g->nccl)
        return 0;
    if (!wants_own)
        return dev_err(err, "%d ranks without an all-reduce of their own need NCCL: %.120s", cfg->n_ranks,
                       lone ? no_library : "it takes one rank a GPU");
    return dev_err(err, "%d ranks do not reach each other's memory, and NCCL is not there: %.120s", cfg->n_ranks,
                   lone ? no_library : "it takes one rank a GPU");
}

int group_join(struct be *b, const struct be_config *cfg, char err[BE_ERR_BYTES]) {
    char no_library[BE_ERR_BYTES] = "rank 0 has none";
    if (!cfg->group)
        return dev_err(err, "a group of %d ranks without memory to meet in", cfg->n_ranks);
    struct group *g = static_cast<struct group *>(calloc(1, sizeof *g));
    if (!g)
        return dev_err(err, "no memory for a group of ranks");
    b->group = g;
    g->s = reinterpret_cast<struct shared *>(cfg->group);
    g->rt = b->rt;
    g->rank = g->x.rank = static_cast<uint32_t>(cfg->rank);
    g->n_ranks = g->x.n_ranks = static_cast<uint32_t>(cfg->n_ranks);
    g->n_vocab = cfg->n_vocab;
    g->far = cfg->far;
    bool wants_own = !cfg->no_own_reduce && !cfg->far && cfg->n_ranks <= EXCHANGE_RANKS;
    struct seat *seat = &g->s->seat[g->rank];
    if (words_make(b, g, err) != 0)
        return -1;
    if (wants_own) {
        g->x.slot_bytes = slot_bytes(b, cfg);
        g->x.region[g->rank] =
            static_cast<unsigned char *>(rt_share(b->rt, exchange_region_bytes(g->x.slot_bytes), seat->handle));
        if (!g->x.region[g->rank])
            return dev_err(err, "no memory for what the ranks exchange");
    }
    rt_place(b->rt, seat->place);
    if (g->rank == 0)
        g->s->library = nccl_id(g->s->id, no_library) == 0;
    if (g->far)
        seat->host = g->rank; /* as its stand says to the others */
    rt_guard(b->rt, look, g); /* a rank may be gone before the group is together */
    if (rt_wait(b->rt, err) != 0 || meet(g, PHASE_HERE, err) != 0 || /* regions are clear before others write there */
        ways_open(b, g, cfg, wants_own, no_library, err) != 0 || ways_choose(b, g, cfg, err) != 0)
        return -1;
    g->together = true;
    return 0;
}

/* others_done: until nobody reads this rank's region any more. */
static void others_done(const struct group *g) {
    uint64_t until = now_ns() + LEAVE_NS;
    uint32_t mine = get(&g->s->seat[g->rank].done);
    for (uint32_t k = 0; k < g->n_ranks; k++)
        while (static_cast<int32_t>(get(&g->s->seat[k].done) - mine) < 0 && !get(&g->s->head.failed) && now_ns() < until)
            nap(MS);
}

void group_leave(struct be *b) {
    struct group *g = b->group;
    if (!g)
        return;
    if (g->own)
        others_done(g);
    nccl_close(g->nccl);
    rt_guard(b->rt, NULL, NULL);
    for (uint32_t k = 0; k < MIN(g->n_ranks, static_cast<uint32_t>(EXCHANGE_RANKS)); k++)
        if (k != g->rank)
            rt_peer_leave(b->rt, g->x.region[k]);
    rt_free(b->rt, g->x.state);
    rt_word_leave(b->rt, &g->s->head.failed);
    rt_unpinned(b->rt, g->words);
    free(g);
    b->group = NULL;
}

/* ---- sums and gathers ----------------------------------------------------------------------------- */

/* library_sum: by NCCL, and the rest of it by kernels of their own. */
static void library_sum(struct be *b, void *in, uint32_t n, uint32_t cols, const struct tail *t) {
    exchange_note(b, &b->group->x);
    nccl_sum(b->group->nccl, in, static_cast<size_t>(n) * cols, b->act);
    if (in != t->y)
        tail_rows(b, in, t, n);
}

void group_sum(struct be *b, void *in, uint32_t n, uint32_t cols, const struct tail *t, void *normed,
               const struct be_norm *norm) {
    struct group *g = b->group;
    size_t row = static_cast<size_t>(cols) * dtype_bytes(b->act), bytes = n * row;
    CHECK(!t->gated && t->n_out == cols);
    if (!g->own || (g->nccl && bytes > g->two_max)) {
        library_sum(b, in, n, cols, t);
        if (normed)
            norm_rows(b, normed, t->y, NULL, false, norm, cols, n);
        return;
    }
    uint32_t each = static_cast<uint32_t>(g->x.slot_bytes / row);
    CHECK(each > 0);
    for (uint32_t r = 0; r < n; r += each) {
        struct exchange_sum s = {};
        size_t at = r * row;
        s.n = MIN(each, n - r);
        s.cols = cols;
        s.in = static_cast<uint8_t *>(in) + at;
        s.y = static_cast<uint8_t *>(t->y) + at;
        s.add = t->add ? static_cast<const uint8_t *>(t->add) + at : NULL;
        s.bias = t->bias;
        s.act = t->act;
        s.two = s.n * row > g->one_max;
        if (normed) {
            s.normed = static_cast<uint8_t *>(normed) + at;
            s.norm = dnorm_of(norm, cols);
        }
        exchange_sum(b, &g->x, &s);
    }
}

/* pad_kernel, place_kernel: parts of unequal width, for a library that takes only equal ones. A part: where its columns
 * start and how many they are, in HEAD words, then n rows of `pitch`. */
enum { HEAD = 4 };
static __global__ void pad_kernel(float *to, const float *part, uint32_t cols, uint32_t col0, uint32_t pitch) {
    dep_wait();
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c == 0 && blockIdx.y == 0) {
        to[0] = __uint_as_float(col0);
        to[1] = __uint_as_float(cols);
    }
    if (c < cols)
        to[HEAD + static_cast<size_t>(blockIdx.y) * pitch + c] = part[static_cast<size_t>(blockIdx.y) * cols + c];
}

static __global__ void place_kernel(float *out, const float *parts, size_t part_floats, uint32_t pitch, uint32_t stride) {
    dep_wait();
    const float *part = parts + blockIdx.z * part_floats;
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x, col0 = __float_as_uint(part[0]), cols = __float_as_uint(part[1]);
    if (c < cols && c < pitch && col0 < stride && c < stride - col0)
        out[static_cast<size_t>(blockIdx.y) * stride + col0 + c] = part[HEAD + static_cast<size_t>(blockIdx.y) * pitch + c];
}

static void library_gather(struct be *b, float *out, const float *part, uint32_t n, uint32_t cols, uint32_t col0,
                           uint32_t stride, uint32_t pitch) {
    struct group *g = b->group;
    size_t floats = HEAD + static_cast<size_t>(n) * pitch;
    float *mine = static_cast<float *>(dev_scratch(b, SCRATCH_PARTS, floats * (g->n_ranks + 1) * sizeof *mine));
    rt_run(b->rt, pad_kernel, dim3(blocks_for(pitch, 256), n), dim3(256), 0, mine, part, cols, col0, pitch);
    exchange_note(b, &g->x);
    nccl_gather(g->nccl, mine + floats, mine, floats);
    rt_run(b->rt, place_kernel, dim3(blocks_for(pitch, 256), n, g->n_ranks), dim3(256), 0, out,
           static_cast<const float *>(mine + floats), floats, pitch, stride);
}

void group_gather(struct be *b, float *out, const float *part, uint32_t n, uint32_t cols, uint32_t col0, uint32_t stride) {
    struct group *g = b->group;
    uint32_t pitch = (blocks_for(g->n_vocab, g->n_ranks) + 3) / 4 * 4;
    CHECK(cols <= pitch && col0 <= stride && cols <= stride - col0);
    if (!g->own || (g->nccl && static_cast<size_t>(n) * pitch * sizeof(float) > g->two_max)) {
        for (uint32_t r = 0; r < n; r += 65535) /* of a grid */
            library_gather(b, out + static_cast<size_t>(r) * stride, part + static_cast<size_t>(r) * cols,
                           MIN(n - r, 65535u), cols, col0, stride, pitch);
        return;
    }
    uint32_t each = exchange_gather_rows(g->x.slot_bytes, pitch);
    for (uint32_t r = 0; r < n; r += each) {
        struct exchange_gather x = {};
        x.out = out + static_cast<size_t>(r) * stride;
        x.part = part + static_cast<size_t>(r) * cols;
        x.n = MIN(each, n - r);
        x.cols = cols;
        x.col0 = col0;
        x.stride = stride;
        x.pitch = pitch;
        exchange_gather(b, &g->x, &x);
    }
}
